#ifndef TSS_CHANNEL_ENCODING_H
#define TSS_CHANNEL_ENCODING_H

#include "../../include/tss_channel.h"
#include "../check.h"
#include "../wire.h"

/* The encodings of docs/channel.md, "Encodings", on top of wire.h's reader and writer. */

#define CHANNEL_VERSION 1u

/* Every frame opens with version u8, kind u8, session 16, from u32. */
#define CHANNEL_HEADER_LEN ((size_t)22)

/* A statement is a body, from its first byte on, and the signature over tag || 0x00 || body behind it. */
#define CHANNEL_SIGNATURE_LEN ((size_t)64)

#define CHANNEL_TAG_HELLO "tssd/1/hello"
#define CHANNEL_TAG_READY "tssd/1/ready"
#define CHANNEL_TAG_BROADCAST "tssd/1/broadcast"
#define CHANNEL_TAG_CONFIRM "tssd/1/confirm"
#define CHANNEL_TAG_ABORT "tssd/1/abort"
#define CHANNEL_TAG_TRANSCRIPT "tssd/1/transcript"
#define CHANNEL_TAG_COMMITTEE "tssd/1/committee"
#define CHANNEL_TAG_ECHO "tssd/1/echo"
#define CHANNEL_TAG_FRAME "tssd/1/frame"

typedef struct channel_header {
    uint8_t version;
    uint8_t kind;
    uint8_t session16[16];
    uint32_t from;
} channel_header;

INTERNAL channel_header reader_header(reader *r);
INTERNAL void writer_header(writer *w, tss_frame_kind kind, const uint8_t *session16, uint32_t from);

INTERNAL uint64_t reader_u64(reader *r);
INTERNAL void writer_u64(writer *w, uint64_t value);

/** Exactly len bytes into out; zeros, and failure, if there are not that many. */
INTERNAL void reader_copy(reader *r, uint8_t *out, size_t len);

/** u16 length and at most max bytes. */
INTERNAL span reader_string(reader *r, size_t max);
INTERNAL void writer_string(writer *w, span bytes);

/** Statement -> body (all but the signature) and signature. False when it is shorter than a header and a signature. */
INTERNAL MUST_USE bool statement_split(span *body, const uint8_t **signature64, span statement);

/** [A-Za-z0-9_-]+-[A-Za-z0-9_]+ as a whole, at most TSS_PARTY_ID_MAX bytes. */
INTERNAL bool party_id_is_valid(span id);

INTERNAL span span_of_text(const char *text);

#endif
