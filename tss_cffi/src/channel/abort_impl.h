#ifndef TSS_CHANNEL_ABORT_IMPL_H
#define TSS_CHANNEL_ABORT_IMPL_H

#include "abort.h"
#include "confirmation.h"

#include <string.h>

INTERNAL bool abort_reason_is_valid(span reason) {
    for (size_t i = 0; i < reason.len; i++) {
        const uint8_t c = reason.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return reason.len != 0 && reason.len <= TSS_CHANNEL_REASON_MAX;
}

INTERNAL void abort_write(writer *w, const tss_abort *notice) {
    writer_header(w, TSS_FRAME_ABORT, notice->session16, notice->seat);
    writer_string(w, (span){(const uint8_t *)notice->party_id, strnlen(notice->party_id, sizeof notice->party_id)});
    writer_string(w, (span){(const uint8_t *)notice->reason, strnlen(notice->reason, sizeof notice->reason)});
    writer_u16(w, notice->culprits_len);
    for (size_t i = 0; i < notice->culprits_len; i++) {
        writer_u32(w, notice->culprits[i]);
    }
}

INTERNAL bool abort_parse(tss_abort *notice, span body) {
    reader r = reader_open(body);
    const channel_header header = reader_header(&r);
    const span party_id = reader_string(&r, TSS_PARTY_ID_MAX);
    const span reason = reader_string(&r, TSS_CHANNEL_REASON_MAX);
    const uint16_t culprits_len = reader_u16(&r);
    memset(notice, 0, sizeof *notice);
    if (!r.ok || header.version != CHANNEL_VERSION || header.kind != TSS_FRAME_ABORT || !party_id_is_valid(party_id)
        || !abort_reason_is_valid(reason) || culprits_len > TSS_PARTIES_MAX) {
        return false;
    }
    memcpy(notice->session16, header.session16, sizeof notice->session16);
    notice->seat = header.from;
    memcpy(notice->party_id, party_id.at, party_id.len);
    memcpy(notice->reason, reason.at, reason.len);
    notice->culprits_len = culprits_len;
    for (size_t i = 0; i < culprits_len; i++) {
        notice->culprits[i] = reader_u32(&r);
        if (notice->culprits[i] <= (i == 0 ? 0 : notice->culprits[i - 1])) {
            return false;
        }
    }
    return reader_done(&r);
}

tss_status tss_abort_body(uint8_t *body, size_t *body_len, uint8_t *digest32, const tss_abort *abort) {
    ARG_CHECK(digest32 != NULL, "digest32");
    memset(digest32, 0, 32);
    ARG_CHECK(body != NULL, "body");
    ARG_CHECK(body_len != NULL, "body_len");
    ARG_CHECK(abort != NULL, "abort");
    ARG_CHECK(abort->culprits_len <= TSS_PARTIES_MAX, "abort.culprits_len");
    tss_abort again;
    writer w = writer_open(body, *body_len);
    *body_len = 0;
    abort_write(&w, abort);
    ARG_CHECK(w.ok, "body_len");
    ARG_CHECK(abort_parse(&again, (span){body, w.len}), "abort");
    if (!crypto_tagged(digest32, CHANNEL_TAG_ABORT, (span){body, w.len})) {
        return TSS_MEMORY;
    }
    *body_len = w.len;
    return TSS_OK;
}

tss_status tss_abort_read(
    tss_abort *abort, const uint8_t *notice, size_t notice_len, const uint8_t *identity33) {
    ARG_CHECK(abort != NULL, "abort");
    memset(abort, 0, sizeof *abort);
    ARG_CHECK(notice != NULL, "notice");
    ARG_CHECK(identity33 != NULL, "identity33");
    if (!abort_parse(abort, identity_statement((span){notice, notice_len}, CHANNEL_TAG_ABORT, identity33))) {
        memset(abort, 0, sizeof *abort);
        return refuse(TSS_REFUSED, "notice");
    }
    return TSS_OK;
}

#endif
