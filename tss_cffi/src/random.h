#ifndef TSS_RANDOM_H
#define TSS_RANDOM_H

#include "bigint.h"
#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Randomness of the operating system: getrandom(2), no state of our own.
 *
 * It cannot fail once it has worked, so it is tried once (random_works, at tss_open); should it fail later all the same, the
 * process aborts: there is nothing safe to go on with.
 *
 * A test build (TSS_SEEDED, never in a wheel) can replace it with a stream made from a seed, so that a ceremony replays. */

INTERNAL MUST_USE bool random_works(void);

INTERNAL void random_bytes(uint8_t *out, size_t len);

/** Uniform in [0, bound); bound > 0, result.n >= bound.n limbs. By rejection: how often says nothing about the result. */
INTERNAL void random_below(big result, big bound);

/** Uniform in [1, bound), bound > 1. For a modulus without small factors it is a unit but for a chance below 2^-900. */
INTERNAL void random_unit(big result, big bound);

#ifdef TSS_SEEDED
/** From here on random_bytes (of every thread) is SHA-256(seed32 || counter), counter from 0. NULL: the operating system again. */
INTERNAL void random_seed(const uint8_t *seed32);
#endif

#endif
