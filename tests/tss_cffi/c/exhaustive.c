/* Sharing and combining in a group of 13 elements: every polynomial, every seat, every share, every subset. */

/* What the small group leaves out of the contract is declared and not defined. */
#pragma GCC diagnostic ignored "-Wunused-function"

#include "curve_small_impl.h"

#include "vss_impl.h"

#include <stdio.h>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

enum { Q = SMALL_Q, T_MAX = 3, SEATS = 5 };

/* Seats are any numbers, so long as they differ modulo the group's order; some are larger than it. */
static const uint32_t seats[SEATS] = {1, 5, 15, 38, 65529};

static void the_group_is_one(void) {
    point kg[Q];
    for (uint64_t k = 0; k < Q; k++) {
        const scalar s = {{k}};
        point_mul_base(&kg[k], &s);
        const uint64_t x = kg[k].d[0], y = kg[k].d[1];
        CHECK(point_is_infinity(&kg[k]) == (k == 0));
        CHECK(k == 0 || (y * y + 2 * SMALL_P - x * x % SMALL_P * x % SMALL_P - SMALL_B) % SMALL_P == 0);
        for (uint64_t l = 0; l < k; l++) {
            CHECK(!point_equal(&kg[k], &kg[l]));
        }
    }
    for (uint64_t k = 0; k < Q; k++) {
        for (uint64_t l = 0; l < Q; l++) {
            point sum;
            point_add(&sum, &kg[k], &kg[l]);
            CHECK(point_equal(&sum, &kg[(k + l) % Q]));
        }
    }
}

/* The number-th polynomial with t coefficients, and its commitments. */
static void polynomial(scalar *f, point *V, size_t t, uint64_t number) {
    for (size_t c = 0; c < t; c++) {
        scalar_set_u64(&f[c], number);
        point_mul_base(&V[c], &f[c]);
        number /= Q;
    }
}

static uint64_t polynomials(size_t t) {
    return t == 0 ? 1 : Q * polynomials(t - 1);
}

static uint64_t value(const scalar *f, size_t t, uint64_t x) {
    uint64_t sum = 0;
    for (size_t c = t; c-- > 0;) {
        sum = (sum * (x % Q) + f[c].d[0]) % Q;
    }
    return sum;
}

static void a_share_fits_its_commitments_and_no_other_does(size_t t) {
    scalar f[T_MAX], share;
    point V[T_MAX], expected, found;
    for (uint64_t number = 0; number < polynomials(t); number++) {
        polynomial(f, V, t, number);
        for (size_t i = 0; i < SEATS; i++) {
            vss_evaluate(&share, f, t, seats[i]);
            CHECK(share.d[0] == value(f, t, seats[i]));
            point_mul_base(&expected, &share);
            vss_evaluate_point_var(&found, V, t, seats[i]);
            CHECK(point_equal(&expected, &found));
            for (uint64_t any = 0; any < Q; any++) {
                const scalar claimed = {{any}};
                CHECK(vss_check(&claimed, V, t, seats[i]) == (any == share.d[0]));
            }
        }
    }
}

/* All subsets of count seats, as bits. */
static size_t subset(uint32_t *chosen, size_t *index, unsigned bits) {
    size_t count = 0;
    for (size_t i = 0; i < SEATS; i++) {
        if (((bits >> i) & 1) != 0) {
            chosen[count] = seats[i];
            index[count] = i;
            count++;
        }
    }
    return count;
}

static void any_t_shares_give_the_polynomial(size_t t) {
    scalar f[T_MAX], share[SEATS], coefficient, term, sum;
    point V[T_MAX], X[SEATS], found, expected;
    uint32_t chosen[SEATS];
    size_t index[SEATS];
    for (uint64_t number = 0; number < polynomials(t); number++) {
        polynomial(f, V, t, number);
        for (size_t i = 0; i < SEATS; i++) {
            vss_evaluate(&share[i], f, t, seats[i]);
            point_mul_base(&X[i], &share[i]);
        }
        for (unsigned bits = 0; bits < 1u << SEATS; bits++) {
            const size_t count = subset(chosen, index, bits);
            const uint32_t at = (uint32_t)(number % 3 == 0 ? 0 : number % 40);
            if (count < t) {
                continue;
            }
            const point *refs[SEATS];
            scalar_set_u64(&sum, 0);
            for (size_t j = 0; j < count; j++) {
                refs[j] = &X[index[j]];
                vss_lagrange(&coefficient, chosen, count, j, at);
                scalar_mul(&term, &coefficient, &share[index[j]]);
                scalar_add(&sum, &sum, &term);
            }
            CHECK(sum.d[0] == value(f, t, at));
            point_mul_base(&expected, &sum);
            vss_interpolate_point_var(&found, refs, chosen, count, at);
            CHECK(point_equal(&found, &expected));
        }
    }
}

/* For any t - 1 seats, each set of shares they can hold comes from as many polynomials with one secret as with another. */
static void fewer_shares_say_nothing(size_t t) {
    static size_t seen[Q * Q][Q];
    scalar f[T_MAX], share;
    point V[T_MAX];
    uint32_t chosen[SEATS];
    size_t index[SEATS];
    for (unsigned bits = 0; bits < 1u << SEATS; bits++) {
        if (subset(chosen, index, bits) != t - 1) {
            continue;
        }
        memset(seen, 0, sizeof seen);
        for (uint64_t number = 0; number < polynomials(t); number++) {
            size_t held = 0;
            polynomial(f, V, t, number);
            for (size_t j = 0; j < t - 1; j++) {
                vss_evaluate(&share, f, t, chosen[j]);
                held = held * Q + share.d[0];
            }
            seen[held][f[0].d[0]]++;
        }
        for (size_t held = 0; held < polynomials(t - 1); held++) {
            for (size_t secret = 0; secret < Q; secret++) {
                CHECK(seen[held][secret] == 1);
            }
        }
    }
}

static void dealt_polynomials_are_committed_to(void) {
    scalar f[T_MAX];
    point V[T_MAX], expected;
    for (int i = 0; i < 100; i++) {
        vss_deal(f, V, T_MAX);
        for (size_t c = 0; c < T_MAX; c++) {
            point_mul_base(&expected, &f[c]);
            CHECK(f[c].d[0] != 0 && point_equal(&V[c], &expected));
        }
    }
}

int main(void) {
    the_group_is_one();
    for (size_t t = 1; t <= T_MAX; t++) {
        a_share_fits_its_commitments_and_no_other_does(t);
        any_t_shares_give_the_polynomial(t);
        fewer_shares_say_nothing(t);
    }
    dealt_polynomials_are_committed_to();
    return 0;
}
