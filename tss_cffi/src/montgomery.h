#ifndef TSS_MONTGOMERY_H
#define TSS_MONTGOMERY_H

#include "bigint.h"
#include "check.h"

#include <stddef.h>
#include <stdint.h>

/* Residues in Montgomery form, below bigint.h: the only place that multiplies modulo something.
 *
 * An ELEMENT is m->words 64-bit words that stand for x R mod m. What the words mean is the kernel's affair; elements made by one modulus
 * object belong to it. All of this is constant time in elements and in the modulus. Results may be operands. */

/** Fill in everything but n and value, which are there. */
INTERNAL void montgomery_init(modulus *m);

/** a: any m->n limbs (not necessarily < m); the way back gives the residue, < m. */
INTERNAL void montgomery_enter(uint64_t *r, const uint64_t *a, const modulus *m);
INTERNAL void montgomery_leave(uint64_t *r, const uint64_t *a, const modulus *m);

INTERNAL void montgomery_one(uint64_t *r, const modulus *m);

/** The element of 2^(64 m->n): to put limbs together from parts of that width. */
INTERNAL void montgomery_shift(uint64_t *r, const modulus *m);

INTERNAL void montgomery_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m);
INTERNAL void montgomery_square(uint64_t *r, const uint64_t *a, const modulus *m);

/** a = flag ? 2a : a, for an a that is a product (or entered): not twice in a row. */
INTERNAL void montgomery_double_if(uint64_t *a, uint64_t flag, const modulus *m);

/** r = table[index] of count elements that lie one behind the other; all of them are read. */
INTERNAL void montgomery_gather(uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const modulus *m);

#endif
