#ifndef TSS_CHANNEL_ECHO_IMPL_H
#define TSS_CHANNEL_ECHO_IMPL_H

#include "echo.h"

#include <openssl/evp.h>

INTERNAL void broadcast_write(
    writer *w, const uint8_t *session16, uint32_t from, const uint8_t *transcript32, uint16_t round, const uint8_t *hash32) {
    writer_header(w, TSS_FRAME_BROADCAST, session16, from);
    writer_bytes(w, (span){transcript32, 32});
    writer_u16(w, round);
    writer_bytes(w, (span){hash32, 32});
}

INTERNAL bool broadcast_read(channel_broadcast *broadcast, span body) {
    reader r = reader_open(body);
    broadcast->header = reader_header(&r);
    reader_copy(&r, broadcast->transcript32, 32);
    broadcast->round = reader_u16(&r);
    reader_copy(&r, broadcast->hash32, 32);
    return reader_done(&r);
}

INTERNAL bool echo_digest(uint8_t *digest32, const echo_round *echoes, uint16_t rounds, size_t seats) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = context != NULL && EVP_DigestInit_ex2(context, EVP_sha256(), NULL) == 1
        && EVP_DigestUpdate(context, CHANNEL_TAG_ECHO, sizeof CHANNEL_TAG_ECHO) == 1;
    for (uint16_t round = 0; ok && round < rounds; round++) {
        ok = EVP_DigestUpdate(context, echoes[round].hashes32, seats * 32) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(context, digest32, NULL) == 1;
    EVP_MD_CTX_free(context);
    return ok;
}

#endif
