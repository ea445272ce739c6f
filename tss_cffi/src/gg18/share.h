#ifndef TSS_GG18_SHARE_H
#define TSS_GG18_SHARE_H

#include "../party.h"
#include "session.h"

/* What a party keeps: pre-parameters before a keygen, the share after it, and their bytes. */

/* Pre-parameters: the private side and the public one that follows from it. */
typedef struct gg18_prepared {
    gg18_private own;
    gg18_public public_;
} gg18_prepared;

/* Who made the primes: a keygen takes only what a search of this library found. */
enum { PREPARED_SEARCHED = 1, PREPARED_FIXTURE = 2 };

typedef struct gg18_share {
    bool v3;
    size_t threshold, n, own; /* own: index */
    uint32_t seats[TSS_PARTIES_MAX];
    scalar x;
    gg18_private secret;
    point Y;
    point X[TSS_PARTIES_MAX];
    gg18_public public_[TSS_PARTIES_MAX];
} gg18_share;

/** Sealed bytes of a set. NULL: no memory. */
INTERNAL MUST_USE tss_secret *prepared_write(const gg18_prepared *prepared, uint8_t origin);

/** What it is to a caller that prepared_read or share_read returned this: TSS_OK, TSS_REFUSED, or TSS_MEMORY, which is not the bytes' fault. */
INTERNAL tss_status read_status(const char *problem);

/** NULL, or the name of what is wrong. Checks every relation. Fixtures pass in the seeded test build alone. */
INTERNAL const char *prepared_read(gg18_prepared *prepared, span bytes);

/** Derive public_ (but h1, which is there) and check both; NULL, or the name of what is wrong. prime_rounds: Miller-Rabin rounds. */
INTERNAL const char *prepared_complete(gg18_prepared *prepared, unsigned prime_rounds);

/** 1 if |p - q| has at least 1021 bits: close factors are found by Fermat's method. */
INTERNAL uint64_t primes_apart(big p, big q);

/** NULL, or the name of what is wrong with public parameters as such: size, parity, range, common factors. */
INTERNAL const char *public_check_var(const gg18_public *public_);

/** NULL, or the name of what two parties both use. */
INTERNAL const char *public_compare(const gg18_public *a, const gg18_public *b);

INTERNAL MUST_USE tss_secret *share_write(const gg18_share *share);

/** NULL, or the name of what is wrong. prove: check every relation; else those that tss_share_load_proven names. */
INTERNAL const char *share_read(gg18_share *share, span bytes, bool prove);
INTERNAL const char *share_check(const gg18_share *share);

/** SHA-256 over all that the parties must agree on. False: the hash failed. */
INTERNAL MUST_USE bool share_digest(uint8_t *digest32, const gg18_share *share);

/** 4: SHA-256 of N, N~, h1, h2. */
enum { PUBLIC_FINGERPRINTS = 4 };
INTERNAL MUST_USE bool public_fingerprints(uint8_t *out32, const gg18_public *public_);

#endif
