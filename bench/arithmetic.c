/* Microseconds of CPU for each primitive of the core's arithmetic: median, minimum and maximum of several runs, as JSON lines.
 *
 *     gcc -O3 -std=c11 -D_GNU_SOURCE -Itss_cffi/src bench/arithmetic.c -lgmp -lcrypto -lsecp256k1 && ./a.out [runs] */

#include "secret_impl.h"

#include "montgomery_impl.h"

#include "bigint_impl.h"

#include "random_impl.h"

#include "curve_impl.h"

#include "primes_impl.h"

#include <stdio.h>
#include <time.h>

enum { RUNS_MAX = 99, MANY = 80 };

static size_t runs = 9;

static uint64_t exponent_d[80], base_d[MANY][64], r_d[MANY][64], p_d[16], q_d[16], m_d[64];
static big base[MANY], result[MANY], exponents[2];
static modulus m;
static crt *c;
static const fixed_base *table[2];
static fixed_base *made[2];
static scalar k;
static point pt;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One run is so many calls that it takes a millisecond or more. */
static void measure(const char *name, void (*call)(void), size_t each) {
    double took[RUNS_MAX];
    size_t calls = 1;
    for (double t = 0; t < 1000; calls *= 2) {
        const double start = now();
        for (size_t i = 0; i < calls; i++) {
            call();
        }
        t = now() - start;
    }
    for (size_t i = 0; i < runs; i++) {
        const double start = now();
        for (size_t j = 0; j < calls; j++) {
            call();
        }
        took[i] = (now() - start) / (double)(calls * each);
    }
    qsort(took, runs, sizeof took[0], ascending);
    (void)printf(
        "{\"what\": \"%s\", \"us\": %.3f, \"min\": %.3f, \"max\": %.3f}\n", name, took[runs / 2], took[0], took[runs - 1]);
}

static void set_modulus(size_t bits) {
    const big value = {m_d, bits / 64};
    random_bytes((uint8_t *)m_d, bits / 8);
    m_d[0] |= 1;
    m_d[bits / 64 - 1] |= (uint64_t)1 << 63;
    modulus_init(&m, value);
    for (size_t i = 0; i < MANY; i++) {
        base[i] = (big){base_d[i], m.n};
        result[i] = (big){r_d[i], m.n};
        random_unit(base[i], value);
    }
}

static void set_exponent(size_t bits) {
    random_bytes((uint8_t *)exponent_d, bits / 8);
    exponent_d[bits / 64 - 1] |= (uint64_t)1 << 63;
    exponents[0] = (big){exponent_d, bits / 64};
}

static void do_mul(void) {
    mod_mul(result[0], base[0], base[1], &m);
}
static void do_montgomery_mul(void) {
    montgomery_mul(r_d[0], r_d[0], r_d[1], &m);
}
static void do_montgomery_square(void) {
    montgomery_square(r_d[0], r_d[0], &m);
}
static void do_init(void) {
    modulus_init(&m, big_view(m_d, m.n));
}
static void do_exp(void) {
    mod_exp(result[0], base[0], exponents[0], &m);
}
static void do_exp_var(void) {
    mod_exp_var(result[0], base[0], exponents[0], &m);
}
static void do_many(void) {
    mod_exp_many(result, base, MANY, exponents[0], &m);
}
static void do_many_var(void) {
    mod_exp_many_var(result, base, MANY, exponents[0], &m);
}
static void do_product(void) {
    mod_exp_product(result[0], base, exponents, 2, &m);
}
static void do_product_var(void) {
    if (!mod_exp_product_var(result[0], base, exponents, 2, &m)) {
        abort();
    }
}
static void do_fixed(void) {
    fixed_exp_product(result[0], table, exponents, 1);
}
static void do_fixed_var(void) {
    fixed_exp_product_var(result[0], table, exponents, 1);
}
static void do_fixed_two(void) {
    fixed_exp_product(result[0], table, exponents, 2);
}
static void do_fixed_new(void) {
    fixed_base_free(fixed_base_new(&m, base[0], 64 * exponents[0].n, 8, true, 65536, FIXED_HEAP));
}
static void do_crt(void) {
    crt_exp(result[0], base[0], exponents[0], c);
}
static void do_crt_many(void) {
    crt_exp_many(result, base, MANY, exponents[0], c);
}
static void do_crt_product(void) {
    crt_exp_product(result[0], base, exponents, 2, c);
}
static void do_crt_square(void) {
    crt_exp_product_square(big_view(r_d[0], 64), base, exponents, 1, c);
}
static void do_nth(void) {
    crt_nth_power(big_view(r_d[0], 64), base[0], c);
}
static void do_inverse(void) {
    (void)big_inverse_odd(result[0], base[0], big_view(m_d, m.n));
}
static void do_coprime(void) {
    (void)big_coprime_var(base[0], big_view(m_d, m.n));
}
static void do_jacobi(void) {
    (void)big_jacobi_var(base[0], big_view(m_d, m.n));
}
static void do_reduce(void) {
    mod_reduce(big_low(result[0], 16), base[0], &c->p);
}
static void do_scalar_mul(void) {
    scalar_mul(&k, &k, &k);
}
static void do_scalar_inverse(void) {
    scalar_inverse(&k, &k);
}
static void do_mul_base(void) {
    point_mul_base(&pt, &k);
}
static void do_point_mul(void) {
    point_mul(&pt, &pt, &k);
}
static void do_point_mul_var(void) {
    point_mul_var(&pt, &pt, &k);
}
static void do_point_add(void) {
    point_add(&pt, &pt, curve_generator());
}
static void do_random(void) {
    random_below(result[0], big_view(m_d, m.n));
}
static void nothing(void *unused) {
    (void)unused;
}
static void do_call(void) {
    if (!secret_call(nothing, NULL)) {
        abort();
    }
}
static void do_alloc(void) {
    secret_free(secret_alloc(256));
}

static void set_crt(void) {
    static const char *const primes[2] = {
        /* the first primes = 3 (mod 4) from 3 2^1022 on, and from 7 2^1021 on */
        "c", "e"};
    uint64_t *const room[2] = {p_d, q_d};
    for (size_t i = 0; i < 2; i++) {
        mpz_t z;
        mpz_init_set_str(z, primes[i], 16);
        mpz_mul_2exp(z, z, 1020);
        do {
            mpz_nextprime(z, z);
        } while (mpz_fdiv_ui(z, 4) != 3);
        big_from_mpz(big_view(room[i], 16), z);
        mpz_clear(z);
    }
    c = secret_alloc(sizeof *c);
    if (c == NULL || crt_init(c, BIG_OF(p_d), BIG_OF(q_d)) != 1) {
        abort();
    }
}

static void modular(size_t bits, size_t exponent_bits) {
    char name[96];
    set_modulus(bits);
    set_exponent(exponent_bits);
#define NAMED(format) ((void)snprintf(name, sizeof name, format, bits, exponent_bits), name)
    measure(NAMED("exp %zu/%zu"), do_exp, 1);
    measure(NAMED("exp_var %zu/%zu"), do_exp_var, 1);
    measure(NAMED("exp_many %zu/%zu"), do_many, MANY);
    measure(NAMED("exp_many_var %zu/%zu"), do_many_var, MANY);
#undef NAMED
}

static void fixed(size_t exponent_bits, size_t uses, bool secret_exponents, size_t max_len) {
    char name[96];
    set_modulus(2048);
    set_exponent(exponent_bits);
    exponents[1] = exponents[0];
    for (size_t i = 0; i < 2; i++) {
        made[i] = fixed_base_new(&m, base[i], exponent_bits, uses, secret_exponents, max_len, FIXED_HEAP);
        table[i] = made[i];
    }
    (void)snprintf(
        name, sizeof name, "fixed%s 2048/%zu, %u teeth %zu blocks", secret_exponents ? "" : "_var", exponent_bits,
        table[0]->teeth, table[0]->blocks);
    measure(name, secret_exponents ? do_fixed : do_fixed_var, 1);
    if (secret_exponents) {
        (void)snprintf(name, sizeof name, "fixed, two bases 2048/%zu", exponent_bits);
        measure(name, do_fixed_two, 1);
        (void)snprintf(name, sizeof name, "fixed, making a table 2048/%zu", exponent_bits);
        measure(name, do_fixed_new, 1);
    }
    fixed_base_free(made[0]);
    fixed_base_free(made[1]);
}

static void searches(void) {
    enum { FINDS = 8 };
    prime_search *search = prime_search_new();
    size_t tests = 0;
    size_t steps = 0;
    double longest = 0;
    const double start = now();
    for (size_t i = 0; search != NULL && i < FINDS; i++) {
        bool found = false;
        while (!found) {
            const double before = now();
            const size_t had = search->tests;
            found = prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d));
            tests += search->tests > had ? search->tests - had : 0;
            steps++;
            longest = now() - before > longest ? now() - before : longest;
        }
    }
    (void)printf(
        "{\"what\": \"safe prime 1024 (mean of %d)\", \"us\": %.0f, \"tests\": %zu, \"steps\": %zu, \"longest step\": %.0f}\n",
        FINDS, (now() - start) / FINDS, tests / FINDS, steps / FINDS, longest);
    prime_search_free(search);
}

static void all(void *unused) {
    (void)unused;
    for (size_t bits = 1024; bits <= 4096; bits *= 2) {
        char name[64];
        set_modulus(bits);
        (void)snprintf(name, sizeof name, "montgomery_mul %zu", bits);
        measure(name, do_montgomery_mul, 1);
        (void)snprintf(name, sizeof name, "montgomery_square %zu", bits);
        measure(name, do_montgomery_square, 1);
        (void)snprintf(name, sizeof name, "mod_mul %zu", bits);
        measure(name, do_mul, 1);
        (void)snprintf(name, sizeof name, "modulus_init %zu", bits);
        measure(name, do_init, 1);
    }
    modular(1024, 1024);
    modular(2048, 256);
    modular(2048, 2048);
    modular(4096, 256);
    modular(4096, 2048);
    set_modulus(2048);
    set_exponent(2048);
    exponents[1] = big_view(exponent_d, 12);
    measure("exp_product 2048/2048+768", do_product, 1);
    measure("exp_product_var 2048/2048+768", do_product_var, 1);
    fixed(768, 4, true, 65536);
    fixed(2816, 4, true, 65536);
    fixed(2048, 128, false, (size_t)1 << 20);
    set_crt();
    set_modulus(2048);
    set_exponent(2048);
    measure("crt_exp 2048/2048", do_crt, 1);
    measure("crt_exp_many 2048/2048", do_crt_many, MANY);
    exponents[1] = big_view(exponent_d, 12);
    measure("crt_exp_product 2048/2048+768", do_crt_product, 1);
    measure("crt_exp_product_square 4096/2048", do_crt_square, 1);
    measure("crt_nth_power 4096", do_nth, 1);
    measure("mod_reduce 2048 by 1024", do_reduce, 1);
    measure("inverse_odd 2048", do_inverse, 1);
    measure("coprime_var 2048", do_coprime, 1);
    measure("jacobi_var 2048", do_jacobi, 1);
    measure("random_below 2048", do_random, 1);
    scalar_random(&k);
    pt = *curve_generator();
    measure("scalar_mul", do_scalar_mul, 1);
    measure("scalar_inverse", do_scalar_inverse, 1);
    measure("point_mul_base", do_mul_base, 1);
    measure("point_mul", do_point_mul, 1);
    measure("point_mul_var", do_point_mul_var, 1);
    measure("point_add", do_point_add, 1);
    measure("secret_alloc and free 256", do_alloc, 1);
    searches();
    secret_free(c);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        runs = (size_t)strtoul(argv[1], NULL, 10);
    }
    if (runs == 0 || runs > RUNS_MAX || !secret_open((size_t)8 << 20) || !curve_open()) {
        return 1;
    }
    measure("secret_call", do_call, 1);
    if (!secret_call(all, NULL)) {
        return 1;
    }
    curve_close();
    return secret_close() ? 0 : 1;
}
