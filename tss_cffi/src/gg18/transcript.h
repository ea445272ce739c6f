#ifndef TSS_GG18_TRANSCRIPT_H
#define TSS_GG18_TRANSCRIPT_H

#include <openssl/evp.h>
#include <stdbool.h>

#include "../wire.h"

/* tss-lib's framed hash: SHA-512/256 over LE64(number of parts), then each part, '$', LE64(length of the part). The length
 * behind the delimiter and the count in front make the encoding unambiguous; versions before 2 had neither, and their
 * proofs could be forged (alpha-shuffle).
 *
 * Integers enter as their shortest big-endian bytes, zero as no bytes at all.
 *
 * The number of parts is stated first and must be met: a transcript with another count does not end well. */
typedef struct transcript {
    EVP_MD_CTX *hash;
    size_t parts_left;
    bool ok;
} transcript;

/** HB / HI: an untagged hash. Every begin needs an end. */
INTERNAL void transcript_begin(transcript *t, size_t parts);
/** HT: the hash of the framed tag comes first, twice. */
INTERNAL void transcript_begin_tagged(transcript *t, span tag, size_t parts);
INTERNAL void transcript_bytes(transcript *t, span part);
INTERNAL void transcript_integer(transcript *t, span big_endian);
/** False, and zeros, when the hash failed (memory) or parts are missing. Frees. */
INTERNAL bool transcript_end(transcript *t, uint8_t *digest32);

/** "digest32 as an integer equals the transmitted integer": commitments travel without leading zeros. */
INTERNAL bool digest_equal_integer_var(const uint8_t *digest32, span big_endian);

#endif
