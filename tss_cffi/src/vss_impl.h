#ifndef TSS_VSS_IMPL_H
#define TSS_VSS_IMPL_H

#include "vss.h"

INTERNAL void vss_deal(scalar *f, point *V, size_t t) {
    for (size_t c = 0; c < t; c++) {
        scalar_random(&f[c]);
        point_mul_base(&V[c], &f[c]);
    }
}

INTERNAL void vss_evaluate(scalar *share, const scalar *f, size_t t, uint32_t seat) {
    scalar x;
    scalar sum = f[t - 1];
    scalar_set_u64(&x, seat);
    for (size_t c = t - 1; c-- > 0;) {
        scalar_mul(&sum, &sum, &x);
        scalar_add(&sum, &sum, &f[c]);
    }
    *share = sum;
}

INTERNAL void vss_evaluate_point_var(point *r, const point *V, size_t t, uint32_t seat) {
    scalar x;
    point sum = V[t - 1];
    scalar_set_u64(&x, seat);
    for (size_t c = t - 1; c-- > 0;) {
        point_mul_var(&sum, &sum, &x);
        point_add(&sum, &sum, &V[c]);
    }
    *r = sum;
}

INTERNAL bool vss_check(const scalar *share, const point *V, size_t t, uint32_t seat) {
    point left;
    point right;
    point_mul_base(&left, share);
    vss_evaluate_point_var(&right, V, t, seat);
    return point_equal(&left, &right);
}

INTERNAL void vss_lagrange(scalar *r, const uint32_t *seats, size_t count, size_t j, uint32_t at) {
    scalar numerator;
    scalar denominator;
    scalar x;
    scalar xj;
    scalar xm;
    scalar_set_u64(&numerator, 1);
    scalar_set_u64(&denominator, 1);
    scalar_set_u64(&x, at);
    scalar_set_u64(&xj, seats[j]);
    for (size_t m = 0; m < count; m++) {
        if (m != j) {
            scalar difference;
            scalar_set_u64(&xm, seats[m]);
            scalar_sub(&difference, &x, &xm);
            scalar_mul(&numerator, &numerator, &difference);
            scalar_sub(&difference, &xj, &xm);
            scalar_mul(&denominator, &denominator, &difference);
        }
    }
    scalar_inverse(&denominator, &denominator);
    scalar_mul(r, &numerator, &denominator);
}

INTERNAL void vss_interpolate_point_var(point *r, const point *const *X, const uint32_t *seats, size_t count, uint32_t at) {
    point sum;
    point_set_infinity(&sum);
    for (size_t j = 0; j < count; j++) {
        scalar coefficient;
        point term;
        vss_lagrange(&coefficient, seats, count, j, at);
        point_mul_var(&term, X[j], &coefficient);
        point_add(&sum, &sum, &term);
    }
    *r = sum;
}

#endif
