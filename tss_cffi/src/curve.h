#ifndef TSS_CURVE_H
#define TSS_CURVE_H

#include "bigint.h"
#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* secp256k1: the field of scalars modulo the group order q, and the group.
 *
 * Scalars are secret unless a comment says otherwise: constant time, and functions that are not are named `_var`. Points are public or
 * become so; whether a point is infinity is never secret. Both types are opaque: how they are stored is curve_impl.h's affair, and
 * another file with the same contract can put a small group in its place. Results may be operands. */

typedef struct scalar {
    uint64_t d[4];
} scalar;

typedef struct point {
    uint8_t d[64];
    uint8_t infinity;
} point;

/** Make and blind the library's context (in the arena, which must be open); free it. Needed before any use of points. */
INTERNAL MUST_USE bool curve_open(void);
INTERNAL void curve_close(void);

/** q, p, b, G.x, G.y as numbers of 4 limbs: hashes want them. */
INTERNAL big curve_order(void);
INTERNAL big curve_field(void);
INTERNAL uint64_t curve_b(void);
INTERNAL const point *curve_generator(void);

/* ---- Scalars ---- */

INTERNAL void scalar_set_u64(scalar *r, uint64_t value);

/** r = a mod q, for any width. */
INTERNAL void scalar_set_big(scalar *r, big a);

/** 32 bytes, big-endian. Returns 1 if they were < q, else 0 (r is then the value mod q). */
INTERNAL uint64_t scalar_set_bytes(scalar *r, const uint8_t *bytes32);

/** Uniform, never zero. */
INTERNAL void scalar_random(scalar *r);

INTERNAL void scalar_bytes(uint8_t *bytes32, const scalar *a);

/** The scalar as a number in [0, q): a view into it, 4 limbs, valid as long as *a is; an operand, never a result. */
INTERNAL big scalar_big(const scalar *a);

INTERNAL void scalar_add(scalar *r, const scalar *a, const scalar *b);
INTERNAL void scalar_sub(scalar *r, const scalar *a, const scalar *b);
INTERNAL void scalar_negate(scalar *r, const scalar *a);
INTERNAL void scalar_mul(scalar *r, const scalar *a, const scalar *b);

/** r = a^-1; 0 for 0. */
INTERNAL void scalar_inverse(scalar *r, const scalar *a);

INTERNAL uint64_t scalar_is_zero(const scalar *a);
INTERNAL uint64_t scalar_equal(const scalar *a, const scalar *b);

/** a > floor(q/2): not a low s. */
INTERNAL uint64_t scalar_is_high(const scalar *a);

/** r = flag ? a : b */
INTERNAL void scalar_select(scalar *r, const scalar *a, const scalar *b, uint64_t flag);

INTERNAL void scalar_wipe(scalar *a);

/* ---- Points ---- */

INTERNAL void point_set_infinity(point *r);

/** Affine coordinates as numbers. False, r = infinity: a coordinate is not < p, or the point is not on the curve. */
INTERNAL MUST_USE bool point_set_xy(point *r, big x, big y);

/** SEC1, compressed (33 bytes) or not (65), nothing else. False, r = infinity: as above. */
INTERNAL MUST_USE bool point_parse(point *r, const uint8_t *bytes, size_t len);

/** x||y, 32 bytes each, and the compressed form. a is not infinity. */
INTERNAL void point_xy(uint8_t *xy64, const point *a);
INTERNAL void point_compress(uint8_t *bytes33, const point *a);

/** Coordinates as numbers: r.n >= 4. a is not infinity. */
INTERNAL void point_x(big r, const point *a);
INTERNAL void point_y(big r, const point *a);

INTERNAL bool point_is_infinity(const point *a);
INTERNAL bool point_equal(const point *a, const point *b);

INTERNAL void point_negate(point *r, const point *a);
INTERNAL void point_add(point *r, const point *a, const point *b);

/** r = sum of count points, count >= 0. */
INTERNAL void point_sum(point *r, const point *const *a, size_t count);

/** r = k G and r = k a, constant time in k (but for k = 0, which gives infinity). */
INTERNAL void point_mul_base(point *r, const scalar *k);
INTERNAL void point_mul(point *r, const point *a, const scalar *k);

/** r = k a and r = a + k G for public k: faster. */
INTERNAL void point_mul_var(point *r, const point *a, const scalar *k);
INTERNAL void point_add_base_var(point *r, const point *a, const scalar *k);

/* ---- ECDSA, public ---- */

/** Does r||s (s low or high, both in [1, q)) sign digest32 under key? */
INTERNAL bool ecdsa_verify(const uint8_t *signature64, const uint8_t *digest32, const point *key);

/** The key that recovery_id 0..3 gives. False, key = infinity: none. */
INTERNAL MUST_USE bool ecdsa_recover(point *key, const uint8_t *signature64, uint8_t recovery_id, const uint8_t *digest32);

#endif
