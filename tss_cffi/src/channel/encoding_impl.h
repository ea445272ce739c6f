#ifndef TSS_CHANNEL_ENCODING_IMPL_H
#define TSS_CHANNEL_ENCODING_IMPL_H

#include "encoding.h"

#include <string.h>

INTERNAL channel_header reader_header(reader *r) {
    channel_header header = {.version = reader_u8(r), .kind = reader_u8(r)};
    reader_copy(r, header.session16, sizeof header.session16);
    header.from = reader_u32(r);
    return header;
}

INTERNAL void writer_header(writer *w, tss_frame_kind kind, const uint8_t *session16, uint32_t from) {
    writer_u8(w, CHANNEL_VERSION);
    writer_u8(w, (uint8_t)kind);
    writer_bytes(w, (span){session16, 16});
    writer_u32(w, from);
}

INTERNAL uint64_t reader_u64(reader *r) {
    const uint64_t high = reader_u32(r);
    return (high << 32) | reader_u32(r);
}

INTERNAL void writer_u64(writer *w, uint64_t value) {
    writer_u32(w, (uint32_t)(value >> 32));
    writer_u32(w, (uint32_t)value);
}

INTERNAL void reader_copy(reader *r, uint8_t *out, size_t len) {
    const span taken = reader_take(r, len);
    memset(out, 0, len);
    if (taken.len != 0) {
        memcpy(out, taken.at, taken.len);
    }
}

INTERNAL span reader_string(reader *r, size_t max) {
    const size_t len = reader_u16(r);
    if (len > max) {
        r->ok = false;
    }
    return reader_take(r, len);
}

INTERNAL void writer_string(writer *w, span bytes) {
    VERIFY_CHECK(bytes.len <= UINT16_MAX);
    writer_u16(w, (uint16_t)bytes.len);
    writer_bytes(w, bytes);
}

INTERNAL bool statement_split(span *body, const uint8_t **signature64, span statement) {
    reader r = reader_open(statement);
    if (statement.len < CHANNEL_HEADER_LEN + CHANNEL_SIGNATURE_LEN) {
        return false;
    }
    *body = reader_take(&r, statement.len - CHANNEL_SIGNATURE_LEN);
    *signature64 = reader_take(&r, CHANNEL_SIGNATURE_LEN).at;
    return true;
}

static bool party_id_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

INTERNAL bool party_id_is_valid(span id) {
    size_t last_dash = 0; /* an id cannot begin with its last dash, so 0 is none */
    for (size_t i = 0; i < id.len; i++) {
        if (id.at[i] == '-') {
            last_dash = i;
        } else if (!party_id_letter(id.at[i])) {
            return false;
        }
    }
    return id.len <= TSS_PARTY_ID_MAX && last_dash != 0 && last_dash + 1 < id.len;
}

INTERNAL span span_of_text(const char *text) {
    return (span){(const uint8_t *)text, strlen(text)};
}

#endif
