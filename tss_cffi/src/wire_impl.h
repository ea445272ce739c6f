#ifndef TSS_WIRE_IMPL_H
#define TSS_WIRE_IMPL_H

#include <string.h>

#include "wire.h"

INTERNAL reader reader_open(span bytes) { return (reader){.left = bytes, .ok = true}; }

INTERNAL span reader_take(reader *r, size_t len) {
    if (!r->ok || len > r->left.len) {
        r->ok = false;
        return (span){0};
    }
    const span taken = {r->left.at, len};
    r->left.at += len;
    r->left.len -= len;
    return taken;
}

INTERNAL uint8_t reader_u8(reader *r) {
    const span s = reader_take(r, 1);
    return s.len == 1 ? s.at[0] : 0;
}

INTERNAL uint16_t reader_u16(reader *r) {
    const span s = reader_take(r, 2);
    return s.len == 2 ? (uint16_t)((unsigned)s.at[0] << 8 | s.at[1]) : 0;
}

INTERNAL uint32_t reader_u32(reader *r) {
    const uint32_t high = reader_u16(r);
    return (high << 16) | reader_u16(r);
}

INTERNAL bool reader_done(const reader *r) { return r->ok && r->left.len == 0; }

INTERNAL writer writer_open(uint8_t *at, size_t room) { return (writer){.at = at, .room = room, .ok = true}; }

INTERNAL writer writer_measure(void) { return (writer){.room = SIZE_MAX, .ok = true}; }

INTERNAL void writer_bytes(writer *w, span bytes) {
    if (!w->ok || bytes.len > w->room - w->len) {
        w->ok = false;
        return;
    }
    if (w->at != NULL && bytes.len != 0) {
        memcpy(w->at + w->len, bytes.at, bytes.len);
    }
    w->len += bytes.len;
}

INTERNAL void writer_u8(writer *w, uint8_t value) { writer_bytes(w, (span){&value, 1}); }

INTERNAL void writer_u16(writer *w, uint16_t value) {
    const uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    writer_bytes(w, (span){bytes, sizeof(bytes)});
}

INTERNAL void writer_u32(writer *w, uint32_t value) {
    writer_u16(w, (uint16_t)(value >> 16));
    writer_u16(w, (uint16_t)value);
}

INTERNAL span span_minimal(span big_endian) {
    while (big_endian.len != 0 && big_endian.at[0] == 0) {
        big_endian.at++;
        big_endian.len--;
    }
    return big_endian;
}

INTERNAL bool span_equal_var(span a, span b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

#endif
