#ifndef TSS_GG18_SESSION_IMPL_H
#define TSS_GG18_SESSION_IMPL_H

#include <string.h>

#include "../secret.h"
#include "session.h"

INTERNAL bool decided(uint64_t flag) {
    DECLASSIFY(&flag, sizeof(flag)); /* see session.h */
    return flag != 0;
}

INTERNAL void transcript_big(transcript *t, big value) {
    uint8_t bytes[BIG_MAX_LIMBS * 8];
    const size_t len = big_write_var(bytes, sizeof(bytes), value);
    transcript_bytes(t, (span){bytes, len});
}

INTERNAL void transcript_point(transcript *t, const point *p) {
    uint8_t xy64[64];
    point_xy(xy64, p);
    transcript_integer(t, (span){xy64, 32});
    transcript_integer(t, (span){xy64 + 32, 32});
}

static void transcript_u32(transcript *t, uint32_t value) {
    const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    transcript_integer(t, (span){bytes, sizeof(bytes)});
}

INTERNAL gg18_tag session_tag(const gg18_session *session) {
    gg18_tag tag = {.len = session->ssid_len};
    memcpy(tag.bytes, session->ssid, session->ssid_len);
    return tag;
}

INTERNAL gg18_tag session_context(const gg18_session *session, size_t party) {
    VERIFY_CHECK(party < 256);
    gg18_tag tag = session_tag(session);
    if (party != 0) {
        tag.bytes[tag.len++] = (uint8_t)party;
    }
    return tag;
}

INTERNAL bool session_open(
    gg18_session *session, bool v3, const uint32_t *keys, size_t n, const point *X, const gg18_public *const *public_,
    const uint8_t *nonce32) {
    const bool signing = X != NULL;
    transcript t;
    transcript_begin(&t, signing ? 5 + n + 2 * n + 3 * n + 2 : 4 + n + 2);
    transcript_big(&t, curve_field());
    transcript_big(&t, curve_order());
    if (signing) {
        transcript_u32(&t, (uint32_t)curve_b()); /* tss-lib leaves it out of a keygen's */
    }
    transcript_point(&t, curve_generator());
    for (size_t i = 0; i < n; i++) {
        transcript_u32(&t, keys[i]);
    }
    for (size_t i = 0; signing && i < n; i++) {
        transcript_point(&t, &X[i]);
    }
    for (size_t i = 0; signing && i < n; i++) {
        transcript_big(&t, BIG_OF(public_[i]->n_tilde));
    }
    for (size_t i = 0; signing && i < n; i++) {
        transcript_big(&t, BIG_OF(public_[i]->h1));
    }
    for (size_t i = 0; signing && i < n; i++) {
        transcript_big(&t, BIG_OF(public_[i]->h2));
    }
    transcript_u32(&t, 1); /* the round that computes it */
    transcript_integer(&t, (span){nonce32, nonce32 == NULL ? 0 : 32});

    uint8_t digest32[32];
    const bool ok = transcript_end(&t, digest32);
    const span ssid = span_minimal((span){digest32, 32});
    *session = (gg18_session){.v3 = v3, .ssid_len = ssid.len};
    memcpy(session->ssid, ssid.at, ssid.len);
    return ok;
}

#endif
