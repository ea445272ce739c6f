#ifndef TSS_PRIMES_H
#define TSS_PRIMES_H

#include "bigint.h"
#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Safe primes p = 2q + 1 of PRIME_BITS bits, q prime too; the two top bits of p are set, so that a product of two has exactly twice the bits.
 *
 * Everything about them is secret: the search object lies in the arena, the tests are constant time. What a watcher of the clock learns is
 * how many candidates were tried. The sieve writes to addresses that depend on the start of the window modulo small primes: who
 * watches the cache while a prime is being made may learn some of those residues. */

#define PRIME_BITS 1024u
#define PRIME_LIMBS (PRIME_BITS / 64u)

typedef struct prime_search prime_search;

/** NULL: the arena or the heap is full. */
INTERNAL MUST_USE prime_search *prime_search_new(void);
INTERNAL void prime_search_free(prime_search *search);

/** Work for a few milliseconds (call it on a secret stack). True: found, p and q (PRIME_LIMBS limbs each) are written; the next call goes
 *  on to a fresh, independent one. */
INTERNAL MUST_USE bool prime_search_step(prime_search *search, big p, big q);

/** How far the present search is, 0..999, never decreasing until one is found; an estimate: the time left is memoryless. */
INTERNAL uint16_t prime_search_permille(const prime_search *search);

/** Are n and (n-1)/2 prime? `rounds` Miller-Rabin rounds each with random bases. n.n = PRIME_LIMBS, top bit set. Constant time but for
 *  the answer. For key material made elsewhere. */
INTERNAL MUST_USE bool prime_is_safe(big n, unsigned rounds);

#endif
