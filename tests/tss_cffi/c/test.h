#ifndef TEST_H
#define TEST_H

/* What every unit test of the core stands on: the whole arithmetic as one translation unit, checks that live in every build, and numbers
 * that like edges. GMP's mpz functions are the oracle. */

#include "secret_impl.h"

#include "montgomery_impl.h"

#include "bigint_impl.h"

#include "random_impl.h"

#include "curve_impl.h"

#include "primes_impl.h"

#include <stdio.h>

#ifndef ROUNDS
#define ROUNDS 200 /* fewer under valgrind */
#endif

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

static gmp_randstate_t test_state; /* the same numbers in every run */

static inline void test_begin(size_t arena_len) {
    gmp_randinit_default(test_state);
    gmp_randseed_ui(test_state, 20240229);
    CHECK(secret_open(arena_len));
    CHECK(curve_open());
}

static inline void test_end(void) {
    curve_close();
    CHECK(secret_close());
    gmp_randclear(test_state);
}

static inline size_t test_below(size_t bound) {
    return (size_t)gmp_urandomm_ui(test_state, bound);
}

static inline void test_to_mpz(mpz_t z, big a) {
    mpz_import(z, a.n, -1, 8, 0, 0, a.d);
}

static inline void test_from_mpz(big a, const mpz_t z) {
    size_t count = 0;
    CHECK(mpz_sgn(z) >= 0 && (mpz_sizeinbase(z, 2) + 63) / 64 <= a.n);
    big_zero(a);
    mpz_export(a.d, &count, -1, 8, 0, 0, z);
}

static inline int test_same(big a, const mpz_t z) {
    mpz_t x;
    mpz_init(x);
    test_to_mpz(x, a);
    const int same = mpz_cmp(x, z) == 0;
    mpz_clear(x);
    return same;
}

/* Any number of that width: uniform, long runs of equal bits, or an extreme. */
static inline void test_number(big a) {
    mpz_t z;
    mpz_init(z);
    switch (test_below(8)) {
    case 0:
        mpz_set_ui(z, test_below(3));
        break;
    case 1:
        mpz_setbit(z, 64 * a.n);
        mpz_sub_ui(z, z, 1 + test_below(3));
        break;
    case 2:
    case 3:
    case 4:
        mpz_rrandomb(z, test_state, 1 + test_below(64 * a.n));
        break;
    default:
        mpz_urandomb(z, test_state, 64 * a.n);
        break;
    }
    test_from_mpz(a, z);
    mpz_clear(z);
}

/* As above, below m. */
static inline void test_residue(big a, big m) {
    mpz_t z, y;
    mpz_inits(z, y, NULL);
    test_number(a);
    test_to_mpz(z, a);
    test_to_mpz(y, m);
    if (test_below(6) == 0) {
        mpz_sub_ui(z, y, 1 + test_below(2));
    }
    mpz_mod(z, z, y);
    test_from_mpz(a, z);
    mpz_clears(z, y, NULL);
}

/* An odd modulus > 1 whose top limb is not zero. */
static inline void test_modulus(big m) {
    test_number(m);
    m.d[0] |= 1;
    if (m.d[m.n - 1] == 0) {
        m.d[m.n - 1] = m.n == 1 ? 3 : 1;
    }
    if (m.n == 1 && m.d[0] == 1) {
        m.d[0] = 3;
    }
}

/* A prime = 3 (mod 4) of exactly that many bits. */
static inline void test_prime(big p, size_t bits) {
    mpz_t z;
    mpz_init(z);
    do {
        mpz_urandomb(z, test_state, bits);
        mpz_setbit(z, bits - 1);
        mpz_setbit(z, bits - 2);
        mpz_nextprime(z, z);
    } while (mpz_fdiv_ui(z, 4) != 3 || mpz_sizeinbase(z, 2) != bits);
    test_from_mpz(p, z);
    mpz_clear(z);
}

/* Run on a secret stack, as the core does. */
static inline void test_secretly(void (*test)(void *)) {
    CHECK(secret_call(test, NULL));
}

#endif
