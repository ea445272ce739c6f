#ifndef TSS_GG18_TRANSCRIPT_IMPL_H
#define TSS_GG18_TRANSCRIPT_IMPL_H

#include <string.h>

#include "../party.h"
#include "transcript.h"

INTERNAL void transcript_absorb(transcript *t, span bytes) {
    t->ok = t->ok && (bytes.len == 0 || EVP_DigestUpdate(t->hash, bytes.at, bytes.len) == 1);
}

INTERNAL void transcript_le64(transcript *t, uint64_t value) {
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    transcript_absorb(t, (span){bytes, sizeof(bytes)});
}

INTERNAL void transcript_open(transcript *t) {
    t->hash = EVP_MD_CTX_new();
    t->ok = t->hash != NULL && EVP_DigestInit_ex(t->hash, EVP_sha512_256(), NULL) == 1;
}

INTERNAL void transcript_begin(transcript *t, size_t parts) {
    transcript_open(t);
    t->parts_left = parts;
    transcript_le64(t, parts);
}

INTERNAL void transcript_begin_tagged(transcript *t, span tag, size_t parts) {
    uint8_t tag32[32];
    transcript tag_hash;
    transcript_begin(&tag_hash, 1);
    transcript_bytes(&tag_hash, tag);
    const bool tag_ok = transcript_end(&tag_hash, tag32);

    transcript_open(t);
    t->ok = t->ok && tag_ok;
    t->parts_left = parts;
    transcript_absorb(t, (span){tag32, sizeof(tag32)});
    transcript_absorb(t, (span){tag32, sizeof(tag32)});
    transcript_le64(t, parts);
}

INTERNAL void transcript_bytes(transcript *t, span part) {
    static const uint8_t delimiter = '$';
    t->ok = t->ok && t->parts_left != 0;
    t->parts_left -= t->ok ? 1 : 0;
    transcript_absorb(t, part);
    transcript_absorb(t, (span){&delimiter, 1});
    transcript_le64(t, part.len);
}

INTERNAL void transcript_integer(transcript *t, span big_endian) { transcript_bytes(t, span_minimal(big_endian)); }

INTERNAL bool transcript_end(transcript *t, uint8_t *digest32) {
    t->ok = t->ok && t->parts_left == 0 && EVP_DigestFinal_ex(t->hash, digest32, NULL) == 1;
    if (!t->ok) {
        memset(digest32, 0, 32);
        party_own_failure(); /* a verifier takes no hash for a wrong one */
    }
    EVP_MD_CTX_free(t->hash);
    t->hash = NULL;
    return t->ok;
}

INTERNAL bool digest_equal_integer_var(const uint8_t *digest32, span big_endian) {
    return span_equal_var(span_minimal((span){digest32, 32}), span_minimal(big_endian));
}

#endif
