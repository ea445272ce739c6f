#ifndef TSS_PROTOCOL_IMPL_H
#define TSS_PROTOCOL_IMPL_H

#include "protocol.h"

enum { KEPT_FORMAT = 1 };

static const uint8_t kept_magic[3] = {'t', 's', 's'};

INTERNAL void kept_write(writer *w, kept_kind kind, tss_protocol id) {
    writer_bytes(w, (span){kept_magic, sizeof(kept_magic)});
    writer_u8(w, (uint8_t)kind);
    writer_u8(w, KEPT_FORMAT);
    writer_u8(w, (uint8_t)id);
}

INTERNAL uint8_t kept_read(reader *r, kept_kind kind) {
    const bool known = span_equal_var(reader_take(r, sizeof(kept_magic)), (span){kept_magic, sizeof(kept_magic)})
        && reader_u8(r) == kind && reader_u8(r) == KEPT_FORMAT;
    const uint8_t id = reader_u8(r);
    return known && r->ok ? id : 0;
}

#endif
