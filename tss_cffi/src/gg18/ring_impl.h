#ifndef TSS_GG18_RING_IMPL_H
#define TSS_GG18_RING_IMPL_H

#include "../secret.h"
#include "ring.h"

enum { RING_TABLE_MAX = 512 * 1024 };

INTERNAL bool ring_public_init(ring_public *ring, const gg18_public *from, size_t a_bits, size_t b_bits, size_t uses) {
    modulus_init(&ring->m, BIG_OF(from->n_tilde));
    ring->h1 = fixed_base_new(&ring->m, BIG_OF(from->h1), a_bits, uses, true, RING_TABLE_MAX, FIXED_HEAP);
    ring->h2 = fixed_base_new(&ring->m, BIG_OF(from->h2), b_bits, uses, true, RING_TABLE_MAX, FIXED_HEAP);
    return ring->h1 != NULL && ring->h2 != NULL;
}

INTERNAL void ring_public_free(ring_public *ring) {
    fixed_base_free(ring->h1);
    fixed_base_free(ring->h2);
    ring->h1 = NULL;
    ring->h2 = NULL;
}

INTERNAL void ring_commit(big r, const ring_public *ring, big a, big b) {
    fixed_exp_product(r, (const fixed_base *const[]){ring->h1, ring->h2}, (const big[]){a, b}, 2);
}

INTERNAL bool ring_private_init(ring_private *ring, const gg18_private *from, big h1) {
    big_set(BIG_OF(ring->h1), h1);
    big_set(BIG_OF(ring->alpha), BIG_OF(from->alpha));
    const uint64_t coprime = crt_init(&ring->n, BIG_OF(from->ring_p), BIG_OF(from->ring_q));
    DECLASSIFY(&ring->n.n, sizeof(ring->n.n)); /* N~ is published */
    return decided(coprime);
}

INTERNAL void ring_commit_own(big r, const ring_private *ring, big a, big b) {
    uint64_t exponent_d[BIG_MAX_LIMBS];
    const size_t product = N_LIMBS + b.n;
    const big exponent = {exponent_d, (product > a.n ? product : a.n) + 1};
    VERIFY_CHECK(exponent.n <= BIG_MAX_LIMBS);
    (void)big_mul_add(exponent, BIG_OF(ring->alpha), b, a);
    crt_exp(r, BIG_OF(ring->h1), exponent, &ring->n);
}

#endif
