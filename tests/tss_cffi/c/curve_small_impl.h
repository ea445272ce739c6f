#ifndef CURVE_SMALL_IMPL_H
#define CURVE_SMALL_IMPL_H

#include "curve.h"
#include "secret.h"

#include <stdlib.h>
#include <string.h>

/* In place of curve_impl.h: the 13 points of y^2 = x^3 + 2 over the field of 19 elements. Of the contract, what sharing needs. */

enum { SMALL_Q = 13, SMALL_P = 19, SMALL_B = 2 };

static const point small_g = {.d = {4, 3}, .infinity = 0};

static uint64_t small_inverse(uint64_t a, uint64_t modulus) {
    for (uint64_t x = 1; x < modulus; x++) {
        if (a * x % modulus == 1) {
            return x;
        }
    }
    return 0;
}

INTERNAL void scalar_set_u64(scalar *r, uint64_t value) {
    *r = (scalar){{value % SMALL_Q}};
}

INTERNAL void scalar_random(scalar *r) {
    static uint64_t next = 0;
    next++;
    scalar_set_u64(r, 1 + next * next % 12);
}

INTERNAL void scalar_add(scalar *r, const scalar *a, const scalar *b) {
    scalar_set_u64(r, a->d[0] + b->d[0]);
}

INTERNAL void scalar_sub(scalar *r, const scalar *a, const scalar *b) {
    scalar_set_u64(r, a->d[0] + SMALL_Q - b->d[0]);
}

INTERNAL void scalar_mul(scalar *r, const scalar *a, const scalar *b) {
    scalar_set_u64(r, a->d[0] * b->d[0]);
}

INTERNAL void scalar_inverse(scalar *r, const scalar *a) {
    scalar_set_u64(r, small_inverse(a->d[0], SMALL_Q));
}

INTERNAL void point_set_infinity(point *r) {
    *r = (point){.infinity = 1};
}

INTERNAL bool point_is_infinity(const point *a) {
    return a->infinity != 0;
}

INTERNAL bool point_equal(const point *a, const point *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

INTERNAL void point_add(point *r, const point *a, const point *b) {
    if (a->infinity != 0 || b->infinity != 0) {
        *r = a->infinity != 0 ? *b : *a;
        return;
    }
    const uint64_t x1 = a->d[0], y1 = a->d[1], x2 = b->d[0], y2 = b->d[1];
    if (x1 == x2 && (y1 + y2) % SMALL_P == 0) {
        point_set_infinity(r);
        return;
    }
    const uint64_t rise = x1 == x2 ? 3 * x1 * x1 : y2 + SMALL_P - y1;
    const uint64_t run = x1 == x2 ? 2 * y1 : x2 + SMALL_P - x1;
    const uint64_t slope = rise % SMALL_P * small_inverse(run % SMALL_P, SMALL_P) % SMALL_P;
    const uint64_t x = (slope * slope + 2 * SMALL_P - x1 - x2) % SMALL_P;
    const uint64_t y = (slope * (x1 + SMALL_P - x) + SMALL_P - y1) % SMALL_P;
    *r = (point){.d = {(uint8_t)x, (uint8_t)y}};
}

INTERNAL void point_mul(point *r, const point *a, const scalar *k) {
    point sum;
    point_set_infinity(&sum);
    for (uint64_t i = 0; i < k->d[0]; i++) {
        point_add(&sum, &sum, a);
    }
    *r = sum;
}

INTERNAL void point_mul_var(point *r, const point *a, const scalar *k) {
    point_mul(r, a, k);
}

INTERNAL void point_mul_base(point *r, const scalar *k) {
    point_mul(r, &small_g, k);
}

#endif
