#ifndef TSS_MONTGOMERY_IFMA_H
#define TSS_MONTGOMERY_IFMA_H

#include "bigint.h"
#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The Montgomery kernel for processors that multiply 52-bit digits eight at a time (AVX-512 IFMA), for moduli of 16, 32 or 64 limbs.
 *
 * An element is 24, 40 or 80 words, one digit each (the last ones zero); R = 2^(52 digits) with 20, 40 or 79 digits. Elements are < 2m, not
 * < m: R is more than 16 m, so that a product of two numbers < 4m is < 2m again without a comparison (the "almost Montgomery
 * multiplication" of Gueron and Krasnov, WAIFI 2012). Contracts are those of montgomery.h. */

/** Can this machine, and is it a width for it? */
INTERNAL bool ifma_usable(size_t limbs);

INTERNAL void ifma_init(modulus *m);
INTERNAL void ifma_enter(uint64_t *r, const uint64_t *a, const modulus *m);
INTERNAL void ifma_leave(uint64_t *r, const uint64_t *a, const modulus *m);
INTERNAL void ifma_one(uint64_t *r, const modulus *m);
INTERNAL void ifma_shift(uint64_t *r, const modulus *m);
INTERNAL void ifma_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m);
INTERNAL void ifma_double_if(uint64_t *a, uint64_t flag, const modulus *m);
INTERNAL void ifma_gather(uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const modulus *m);

/* ---- Eight numbers of 16 limbs at a time: half the time for each ---- */

INTERNAL bool ifma_has_octets(const modulus *m);

/** r[i] = base[i]^exponent for i < 8, by windows of at most 5 bits. Constant time. */
INTERNAL void ifma_exp_octet(const big *r, const big *base, big exponent, unsigned window, const modulus *m);

/** passes8[i] = 1 if 2^(m - 1) = 1 modulo m = m8[i], else 0. Constant time. */
INTERNAL void ifma_fermat_octet(uint64_t *passes8, const modulus *m8);

#endif
