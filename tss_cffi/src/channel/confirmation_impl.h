#ifndef TSS_CHANNEL_CONFIRMATION_IMPL_H
#define TSS_CHANNEL_CONFIRMATION_IMPL_H

#include "confirmation.h"

#include <string.h>

INTERNAL void confirmation_write(writer *w, const tss_confirmation *c) {
    writer_header(w, TSS_FRAME_CONFIRM, c->session16, c->seat);
    writer_u8(w, (uint8_t)c->kind);
    writer_u8(w, (uint8_t)c->protocol);
    writer_u32(w, c->generation);
    writer_bytes(w, (span){c->committee32, 32});
    writer_bytes(w, (span){c->transcript32, 32});
    writer_bytes(w, (span){c->echo32, 32});
    writer_string(w, (span){c->result, c->result_len});
}

INTERNAL bool confirmation_parse(tss_confirmation *c, span body) {
    reader r = reader_open(body);
    const channel_header header = reader_header(&r);
    memset(c, 0, sizeof *c);
    memcpy(c->session16, header.session16, sizeof c->session16);
    c->seat = header.from;
    const uint8_t kind = reader_u8(&r);
    const uint8_t protocol = reader_u8(&r);
    c->generation = reader_u32(&r);
    reader_copy(&r, c->committee32, 32);
    reader_copy(&r, c->transcript32, 32);
    reader_copy(&r, c->echo32, 32);
    const span result = reader_string(&r, sizeof c->result);
    if (!reader_done(&r) || header.version != CHANNEL_VERSION || header.kind != TSS_FRAME_CONFIRM || kind < TSS_KEYGEN
        || kind > TSS_ROTATION || protocol < TSS_GG18_V2 || protocol > TSS_GG18_V3
        || result.len != (kind == TSS_SIGNING ? 64 : 32)) {
        return false;
    }
    c->kind = (tss_ceremony_kind)kind;
    c->protocol = (tss_protocol)protocol;
    c->result_len = (uint8_t)result.len;
    memcpy(c->result, result.at, result.len);
    return true;
}

INTERNAL bool confirmations_agree(span body_a, span body_b) {
    reader a = reader_open(body_a);
    reader b = reader_open(body_b);
    const bool before = span_equal_var(reader_take(&a, CHANNEL_HEADER_LEN - 4), reader_take(&b, CHANNEL_HEADER_LEN - 4));
    (void)reader_u32(&a);
    (void)reader_u32(&b);
    return before && a.ok && b.ok && span_equal_var(a.left, b.left);
}

static bool identity_signed(const uint8_t *identity33, const uint8_t *digest32, const uint8_t *signature64) {
    crypto_identity *identity = crypto_identity_open(identity33);
    const bool genuine = identity != NULL && crypto_identity_verify(identity, digest32, signature64);
    crypto_identity_close(identity);
    return genuine;
}

tss_status tss_identity_verify(const uint8_t *identity33, const uint8_t *digest32, const uint8_t *signature64) {
    ARG_CHECK(identity33 != NULL, "identity33");
    ARG_CHECK(digest32 != NULL, "digest32");
    ARG_CHECK(signature64 != NULL, "signature64");
    return identity_signed(identity33, digest32, signature64) ? TSS_OK : refuse(TSS_REFUSED, "signature64");
}

/* A statement under an identity's signature: its body, or no bytes. */
static span identity_statement(span statement, const char *tag, const uint8_t *identity33) {
    span body;
    const uint8_t *signature64;
    uint8_t digest[32];
    const bool genuine = statement_split(&body, &signature64, statement) && crypto_tagged(digest, tag, body)
        && identity_signed(identity33, digest, signature64);
    return genuine ? body : (span){0};
}

tss_status tss_confirmation_read(
    tss_confirmation *confirmation, const uint8_t *data, size_t data_len, const uint8_t *identity33) {
    ARG_CHECK(confirmation != NULL, "confirmation");
    memset(confirmation, 0, sizeof *confirmation);
    ARG_CHECK(data != NULL, "data");
    const span all = {data, data_len};
    const span body = identity33 != NULL ? identity_statement(all, CHANNEL_TAG_CONFIRM, identity33) : all;
    if (!confirmation_parse(confirmation, body)) {
        memset(confirmation, 0, sizeof *confirmation);
        return refuse(TSS_REFUSED, "data");
    }
    return TSS_OK;
}

tss_status tss_confirmation_digest(uint8_t *digest32, const uint8_t *body, size_t body_len) {
    ARG_CHECK(digest32 != NULL, "digest32");
    memset(digest32, 0, 32);
    ARG_CHECK(body != NULL, "body");
    tss_confirmation ignored;
    if (!confirmation_parse(&ignored, (span){body, body_len})) {
        return refuse(TSS_REFUSED, "body");
    }
    return crypto_tagged(digest32, CHANNEL_TAG_CONFIRM, (span){body, body_len}) ? TSS_OK : TSS_MEMORY;
}

#endif
