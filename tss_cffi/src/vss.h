#ifndef TSS_VSS_H
#define TSS_VSS_H

#include "curve.h"

#include <stddef.h>
#include <stdint.h>

/* Feldman's verifiable secret sharing over secp256k1: f of degree t - 1, f(0) the secret, f(seat) a share, V_c = f_c G public.
 * Seats are public, distinct, and not zero; nothing else about them is assumed. */

/** A polynomial of t coefficients, none of them zero, and its commitments. */
INTERNAL void vss_deal(scalar *f, point *V, size_t t);

/** share = f(seat) */
INTERNAL void vss_evaluate(scalar *share, const scalar *f, size_t t, uint32_t seat);

/** f(seat) G from the commitments. */
INTERNAL void vss_evaluate_point_var(point *r, const point *V, size_t t, uint32_t seat);

/** Does the share fit the commitments? Constant time in the share. */
INTERNAL bool vss_check(const scalar *share, const point *V, size_t t, uint32_t seat);

/** The Lagrange coefficient of seats[j] among count seats, for the value at `at` (0: the secret). */
INTERNAL void vss_lagrange(scalar *r, const uint32_t *seats, size_t count, size_t j, uint32_t at);

/** f(at) G from f(seats[j]) G for count = t seats. */
INTERNAL void vss_interpolate_point_var(point *r, const point *const *X, const uint32_t *seats, size_t count, uint32_t at);

#endif
