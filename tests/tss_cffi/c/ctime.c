/* Constant time, checked by valgrind: secrets are marked as undefined, and a branch or an address that depends on one is reported. Built with
 * TSS_CTIME. What a function declassifies, it says in a comment where it does. */

#include "test.h"

#include <valgrind/memcheck.h>

static uint64_t any[16][80];

/* A number whose value is secret from here on. */
static big secret(size_t slot, size_t n) {
    const big a = {any[slot], n};
    test_number(a);
    CLASSIFY(a.d, 8 * n);
    return a;
}

static big secret_residue(size_t slot, big m) {
    const big a = {any[slot], m.n};
    test_residue(a, m);
    CLASSIFY(a.d, 8 * m.n);
    return a;
}

static big result(size_t slot, size_t n) {
    return (big){any[slot], n};
}

static void comparisons(void *unused) {
    (void)unused;
    const big a = secret(0, 9);
    const big b = secret(1, 9);
    const big r = result(2, 9);
    uint64_t flag = ct_equal(a.d, b.d, 72) ^ big_less(a, b) ^ big_equal(a, b) ^ big_is_zero(a) ^ big_is_odd(b);
    flag ^= big_equal_u64(a, 3) ^ big_bit(a, 70);
    ct_select(r.d, a.d, b.d, 72, flag);
    big_select(r, a, b, flag);
    big_set(r, a);
    big_wipe(a);
}

static void integers(void *unused) {
    (void)unused;
    uint8_t bytes[80];
    const big a = secret(0, 9);
    const big b = secret(1, 4);
    const big r = result(2, 13);
    uint64_t carry = big_add(big_low(r, 9), a, b);
    carry ^= big_sub(big_low(r, 9), a, b);
    big_mul(r, a, b);
    carry ^= big_mul_add(r, b, a, a);
    big_shift_left(r, a, 75);
    big_shift_right(r, a, 75);
    CHECK(big_to_bytes(bytes, 80, a));
    CHECK(big_from_bytes(big_low(r, 9), bytes, 80));
    CLASSIFY(&carry, sizeof carry);

    /* A public divisor, and secret odd ones. */
    const big m = {any[3], 5};
    test_modulus(m);
    big_divide(result(4, 9), result(5, 5), a, m);
    big_mod(result(5, 5), a, m);
    CLASSIFY(m.d, 40);
    big_mul(result(6, 14), a, m);
    big_divide_exact(result(7, 9), result(6, 14), m);
}

static void inverses(void *unused) {
    (void)unused;
    const big m = {any[0], 16};
    test_modulus(m);
    const big a = secret_residue(1, m);
    CLASSIFY(m.d, 128);
    uint64_t ok = big_inverse_odd(result(2, 16), a, m);
    const big odd = {any[3], 16};
    test_modulus(odd);
    const big any_modulus = secret(4, 16);
    ok ^= big_inverse_of_odd(result(2, 16), odd, any_modulus);
    CLASSIFY(&ok, sizeof ok);
}

static void residues_and_powers(void *unused) {
    (void)unused;
    modulus m;
    const big value = {any[0], 16};
    test_modulus(value);
    const big base[3] = {secret_residue(1, value), secret_residue(2, value), secret_residue(3, value)};
    const big exponent[3] = {secret(4, 4), secret(5, 12), secret(6, 1)};
    const big r = result(7, 16);
    const big s = result(8, 16);
    const big public_exponent = {any[9], 3};
    test_number(public_exponent);
    CLASSIFY(value.d, 128); /* factors are moduli, too */
    modulus_init(&m, value);
    mod_add(r, base[0], base[1], &m);
    mod_sub(r, base[0], base[1], &m);
    mod_negate(r, base[0], &m);
    mod_mul(r, base[0], base[1], &m);
    mod_reduce(r, secret(10, 70), &m);
    mod_exp(r, base[0], exponent[1], &m);
    mod_exp_product(r, base, exponent, 3, &m);
    const big many[2] = {r, s};
    mod_exp_many(many, base, 2, exponent[0], &m);
    /* Public exponents, secret bases and modulus. */
    mod_exp_var(r, base[0], public_exponent, &m);
    const big public_exponents[2] = {public_exponent, public_exponent};
    CHECK(mod_exp_product_var(r, base, public_exponents, 2, &m));
    mod_exp_many_var(many, base, 2, public_exponent, &m);

    for (int secret_exponents = 0; secret_exponents < 2; secret_exponents++) {
        fixed_base *f = fixed_base_new(&m, base[0], 768, 20, secret_exponents != 0, 65536, FIXED_ARENA);
        fixed_base *g = fixed_base_new(&m, base[1], 256, 3, secret_exponents != 0, 65536, FIXED_ARENA);
        CHECK(f != NULL && g != NULL);
        const fixed_base *const tables[2] = {f, g};
        const big exponents[2] = {exponent[1], exponent[0]};
        fixed_exp_product(r, tables, exponents, 2);
        fixed_exp_product_var(r, tables, public_exponents, 2);
        fixed_base_free(f);
        fixed_base_free(g);
    }
}

static void known_factors(void *unused) {
    (void)unused;
    const big p = {any[0], 4};
    const big q = {any[1], 4};
    crt *c = secret_alloc(sizeof *c);
    CHECK(c != NULL);
    test_prime(p, 256);
    test_prime(q, 256);
    CLASSIFY(p.d, 32);
    CLASSIFY(q.d, 32);
    uint64_t ok = crt_init(c, p, q);
    CLASSIFY(&ok, sizeof ok);
    const big base[2] = {secret(2, 8), secret(3, 5)};
    const big exponent[2] = {secret(4, 12), secret(5, 3)};
    const big public_exponent[2] = {{any[6], 12}, {any[7], 3}};
    test_number(public_exponent[0]);
    test_number(public_exponent[1]);
    const big r = result(8, 8);
    const big rr = result(9, 16);
    crt_exp_product(r, base, exponent, 2, c);
    crt_exp_product_var(r, base, public_exponent, 2, c);
    crt_exp_product_var(r, base, &public_exponent[1], 1, c);
    crt_exp(r, base[0], exponent[0], c);
    crt_exp_many(&r, base, 1, exponent[0], c);
    crt_exp_product_square(rr, base, exponent, 2, c);
    crt_exp_product_square_var(rr, base, public_exponent, 2, c);
    crt_nth_power(rr, base[0], c);
    crt_combine(r, result(10, 4), result(11, 4), c);
    crt_reduce_exponent(result(10, 4), exponent[0], &c->p_half);
    secret_free(c);
}

static void randomness(void *unused) {
    (void)unused;
    const big bound = {any[0], 4};
    test_number(bound);
    bound.d[3] |= 1;
    CLASSIFY(bound.d, 32);
    random_below(result(1, 5), bound);
    random_unit(result(1, 5), bound);
}

static void scalars(void *unused) {
    (void)unused;
    uint8_t bytes32[32];
    scalar a, b, r;
    scalar_random(&a);
    scalar_random(&b);
    CLASSIFY(&a, sizeof a);
    CLASSIFY(&b, sizeof b);
    scalar_add(&r, &a, &b);
    scalar_sub(&r, &r, &b);
    scalar_negate(&r, &r);
    scalar_mul(&r, &r, &b);
    scalar_inverse(&r, &r);
    uint64_t flag = scalar_is_zero(&r) ^ scalar_equal(&r, &a) ^ scalar_is_high(&r);
    scalar_select(&r, &a, &b, flag);
    scalar_bytes(bytes32, &r);
    flag ^= scalar_set_bytes(&r, bytes32);
    CLASSIFY(&flag, sizeof flag);
    scalar_set_big(&r, secret(0, 36));
    scalar_wipe(&r);
}

static void points(void *unused) {
    (void)unused;
    scalar k;
    point p;
    scalar_random(&k);
    CLASSIFY(&k, sizeof k);
    point_mul_base(&p, &k);
    point_mul(&p, curve_generator(), &k);
    CHECK(!point_is_infinity(&p));
}

static void primes(void *unused) {
    (void)unused;
    modulus m;
    const big n = {any[0], PRIME_LIMBS};
    test_modulus(n);
    n.d[PRIME_LIMBS - 1] |= (uint64_t)1 << 63;
    CLASSIFY(n.d, 8 * PRIME_LIMBS);
    modulus_init(&m, n);
    uint64_t prime = prime_fermat(&m);
    prime ^= prime_round(&m);
    CLASSIFY(&prime, sizeof prime);
    CHECK(!prime_is_safe(n, 1) || prime_is_safe(n, 1));
}

/* The test itself must be able to fail: this is a secret branch. */
static void branch_on_a_secret(void *unused) {
    (void)unused;
    const big a = secret(0, 1);
    if (a.d[0] % 3 == 0) {
        (void)fprintf(stderr, " \b");
    }
}

int main(int argc, char **argv) {
    static void (*const tests[])(void *) = {
        comparisons, integers, inverses, residues_and_powers, known_factors, randomness, scalars, points, primes,
    };
    CHECK(RUNNING_ON_VALGRIND);
    test_begin(4 << 20);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        test_secretly(tests[i]);
    }
    if (argc == 2 && strcmp(argv[1], "--branch") == 0) {
        test_secretly(branch_on_a_secret);
    }
    VALGRIND_MAKE_MEM_DEFINED(any, sizeof any);
    test_end();
    return 0;
}
