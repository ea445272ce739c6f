#ifndef TSS_CHANNEL_FRAME_IMPL_H
#define TSS_CHANNEL_FRAME_IMPL_H

#include "frame.h"

_Static_assert(FRAME_SEALED_HEADER_LEN + FRAME_PREFIX_MAX + TSS_MESSAGE_MAX + CRYPTO_TAG_LEN <= TSS_CHANNEL_FRAME_MAX, "frame");

INTERNAL void frame_header_write(
    writer *w, const uint8_t *session16, uint32_t from, uint32_t to, uint64_t sequence, tss_class class_) {
    writer_header(w, TSS_FRAME_SEALED, session16, from);
    writer_u32(w, to);
    writer_u64(w, sequence);
    writer_u8(w, (uint8_t)class_);
}

INTERNAL frame_header frame_header_read(reader *r) {
    frame_header header = {.header = reader_header(r)};
    header.to = reader_u32(r);
    header.sequence = reader_u64(r);
    header.class_ = reader_u8(r);
    return header;
}

INTERNAL void frame_prefix_write(writer *w, uint16_t round, span echo, const uint8_t *signature64) {
    writer_u16(w, round);
    writer_u8(w, (uint8_t)(echo.len / 32));
    writer_bytes(w, echo);
    if (signature64 != NULL) {
        writer_bytes(w, (span){signature64, CHANNEL_SIGNATURE_LEN});
    }
}

INTERNAL bool frame_payload_read(frame_payload *payload, span opened, bool is_signed) {
    /* All but the message is the same for all parties, or says what their frames show. */
    DECLASSIFY(opened.at, opened.len < 3 ? opened.len : 3);
    reader r = reader_open(opened);
    payload->round = reader_u16(&r);
    payload->echo_len = reader_u8(&r);
    payload->echo = reader_take(&r, (size_t)32 * payload->echo_len);
    payload->signature64 = is_signed ? reader_take(&r, CHANNEL_SIGNATURE_LEN).at : NULL;
    payload->message = r.left;
    DECLASSIFY(opened.at, opened.len - payload->message.len);
    return r.ok && payload->message.len <= TSS_MESSAGE_MAX;
}

INTERNAL void ack_write(writer *w, const uint8_t *session16, uint32_t from, uint32_t to, uint64_t next) {
    writer_header(w, TSS_FRAME_ACK, session16, from);
    writer_u32(w, to);
    writer_u64(w, next);
}

#endif
