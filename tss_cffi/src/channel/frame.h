#ifndef TSS_CHANNEL_FRAME_H
#define TSS_CHANNEL_FRAME_H

#include "crypto.h"
#include "encoding.h"

/* Sealed frames: header in clear and authenticated, then round, echo, signature and message, sealed; and acks. docs/channel.md, "Frames". */

#define FRAME_SEALED_HEADER_LEN (CHANNEL_HEADER_LEN + 4 + 8 + 1)
#define FRAME_SEQUENCE_MAX ((uint64_t)UINT32_MAX)
#define FRAME_PREFIX_MAX ((size_t)2 + 1 + 32 * TSS_PARTIES_MAX + CHANNEL_SIGNATURE_LEN)
#define FRAME_ACK_LEN (CHANNEL_HEADER_LEN + 4 + 8)

typedef struct frame_header {
    channel_header header;
    uint32_t to;
    uint64_t sequence;
    uint8_t class_;
} frame_header;

/* Views into an opened payload. */
typedef struct frame_payload {
    uint16_t round;
    uint8_t echo_len; /* hashes: 0, or one for each seat */
    span echo;
    const uint8_t *signature64; /* of a broadcast between three or more, else NULL */
    span message;
} frame_payload;

INTERNAL void frame_header_write(
    writer *w, const uint8_t *session16, uint32_t from, uint32_t to, uint64_t sequence, tss_class class_);

/** Reads the header and leaves r at what follows it. */
INTERNAL frame_header frame_header_read(reader *r);

/** signature64 is NULL where there is none. */
INTERNAL void frame_prefix_write(writer *w, uint16_t round, span echo, const uint8_t *signature64);
INTERNAL MUST_USE bool frame_payload_read(frame_payload *payload, span opened, bool is_signed);

INTERNAL void ack_write(writer *w, const uint8_t *session16, uint32_t from, uint32_t to, uint64_t next);

#endif
