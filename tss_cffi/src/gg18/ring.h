#ifndef TSS_GG18_RING_H
#define TSS_GG18_RING_H

#include "../bigint.h"
#include "session.h"

/* Ring-Pedersen commitments h1^a h2^b mod N~: a prover works in its verifier's ring. In our own, whose factors and
 * alpha = log_h1 h2 we know, a commitment is one short power: h1^(a + alpha b mod p'q'). */

typedef struct ring_public {
    modulus m;
    fixed_base *h1, *h2;
} ring_public;

/* SECRET. */
typedef struct ring_private {
    crt n;
    uint64_t h1[N_LIMBS];
    uint64_t alpha[N_LIMBS];
} ring_private;

/** Tables for about `uses` commitments with a of up to a_bits, b of up to b_bits. False: no memory. Not to be moved afterwards. */
INTERNAL MUST_USE bool ring_public_init(ring_public *ring, const gg18_public *from, size_t a_bits, size_t b_bits, size_t uses);
INTERNAL void ring_public_free(ring_public *ring);

/** r = h1^a h2^b, secret a and b. */
INTERNAL void ring_commit(big r, const ring_public *ring, big a, big b);

/** False: the primes are not coprime. */
INTERNAL MUST_USE bool ring_private_init(ring_private *ring, const gg18_private *from, big h1);

/** The same in our own ring. */
INTERNAL void ring_commit_own(big r, const ring_private *ring, big a, big b);

#endif
