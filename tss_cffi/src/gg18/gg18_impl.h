#ifndef TSS_GG18_IMPL_H
#define TSS_GG18_IMPL_H

#include "../secret.h"
#include "foreign.h"
#include "gg18.h"
#include "keygen.h"
#include "prepare.h"
#include "share.h"
#include "signing.h"

static tss_status gg18_prepared_fingerprints(uint8_t *out32, size_t *count, const char **field, span bytes) {
    gg18_prepared prepared;
    *field = prepared_read(&prepared, bytes);
    if (*field != NULL) {
        return read_status(*field);
    }
    *count = PUBLIC_FINGERPRINTS;
    return public_fingerprints(out32, &prepared.public_) ? TSS_OK : TSS_MEMORY;
}

static tss_status gg18_share_load(void **share, const char **field, span bytes, bool prove) {
    gg18_share *loaded = secret_alloc(sizeof(gg18_share));
    if (loaded == NULL) {
        return TSS_MEMORY;
    }
    *field = share_read(loaded, bytes, prove);
    if (*field != NULL) {
        secret_free(loaded);
        return read_status(*field);
    }
    *share = loaded;
    return TSS_OK;
}

static bool gg18_share_describe(tss_share_info *info, const void *body) {
    const gg18_share *share = body;
    info->protocol = share->v3 ? TSS_GG18_V3 : TSS_GG18_V2;
    info->threshold = (uint16_t)share->threshold;
    info->parties = (uint16_t)share->n;
    info->seat = share->seats[share->own];
    for (size_t i = 0; i < share->n; i++) {
        info->seats[i] = share->seats[i];
    }
    point_compress(info->public33, &share->Y);
    return share_digest(info->digest32, share);
}

static bool gg18_share_fingerprints(uint8_t *out32, size_t *count, const void *body) {
    const gg18_share *share = body;
    bool ok = true;
    for (size_t i = 0; ok && i < share->n; i++) {
        ok = public_fingerprints(out32 + 32 * PUBLIC_FINGERPRINTS * i, &share->public_[i]);
    }
    *count = PUBLIC_FINGERPRINTS * share->n;
    return ok;
}

static tss_status gg18_share_import(
    tss_secret **bytes, const char **field, tss_protocol id, uint16_t threshold, span foreign) {
    gg18_share *share = secret_alloc(sizeof(gg18_share));
    if (share == NULL) {
        return TSS_MEMORY;
    }
    *field = foreign_read(share, id == TSS_GG18_V3, threshold, foreign);
    *bytes = *field == NULL ? share_write(share) : NULL;
    secret_free(share);
    return *field != NULL ? TSS_REFUSED : *bytes != NULL ? TSS_OK : TSS_MEMORY;
}

static tss_status gg18_sign(
    tss_party **party, const void *share, const uint32_t *signers, size_t n, const uint8_t *digest32,
    const uint8_t *session32) {
    return gg18_signing_begin(party, share, signers, n, digest32, session32);
}

#define GG18_PROTOCOL(profile, binds)                                \
    {                                                                \
        .id = (profile),                                             \
        .binds_session = (binds),                                    \
        .wants_prepared = true,                                      \
        .prepare_begin = gg18_prepare_begin,                         \
        .prepare_step = gg18_prepare_step,                           \
        .prepare_end = gg18_prepare_end,                             \
        .prepared_fingerprints = gg18_prepared_fingerprints,         \
        .share_load = gg18_share_load,                               \
        .share_free = secret_free,                                   \
        .share_describe = gg18_share_describe,                       \
        .share_fingerprints = gg18_share_fingerprints,               \
        .share_import = gg18_share_import,                           \
        .keygen_begin = gg18_keygen_begin,                           \
        .signing_begin = gg18_sign,                                  \
    }

INTERNAL const protocol *gg18_protocol(tss_protocol id) {
    static const protocol v2 = GG18_PROTOCOL(TSS_GG18_V2, false);
    static const protocol v3 = GG18_PROTOCOL(TSS_GG18_V3, true);
    return id == TSS_GG18_V2 ? &v2 : id == TSS_GG18_V3 ? &v3 : NULL;
}

#endif
