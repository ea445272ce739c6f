/* The bounds that the comments of montgomery_ifma*.h claim, at their edges: factors up to 4m - 1, digits that are all ones, moduli that fill
 * their limbs and such that do not. Every product must be < 2m, in digits < 2^52, whatever stands in its registers meanwhile. */

#include "test.h"

static const size_t widths[] = {16, 32, 64};

static size_t r_bits(const modulus *m) {
    return IFMA_DIGIT_BITS * ifma_digits(m);
}

/* The number that an element's digits stand for; each must be one. */
static void value_of(mpz_t z, const uint64_t *element, size_t words) {
    for (size_t i = 0; i < words; i++) {
        CHECK(element[i] <= IFMA_DIGIT);
    }
    mpz_import(z, words, -1, 8, 0, 64 - IFMA_DIGIT_BITS, element);
}

static void element_of(uint64_t *element, const mpz_t z) {
    size_t count = 0;
    memset(element, 0, 8 * MONTGOMERY_WORDS);
    mpz_export(element, &count, -1, 8, 0, 64 - IFMA_DIGIT_BITS, z);
    CHECK(count <= MONTGOMERY_WORDS);
}

/* Below `times` m: the extremes, long runs of ones, or anything. */
static void factor(mpz_t z, const mpz_t m, unsigned times) {
    mpz_t bound;
    mpz_init(bound);
    mpz_mul_ui(bound, m, times);
    switch (test_below(6)) {
    case 0:
        mpz_sub_ui(z, bound, 1 + test_below(2));
        break;
    case 1:
        mpz_mul_ui(z, m, test_below(times));
        mpz_add_ui(z, z, test_below(2));
        break;
    case 2:
        mpz_set_ui(z, 0);
        mpz_setbit(z, 1 + test_below(mpz_sizeinbase(bound, 2) - 1));
        mpz_sub_ui(z, z, 1);
        break;
    case 3:
        mpz_rrandomb(z, test_state, mpz_sizeinbase(bound, 2));
        break;
    default:
        mpz_urandomm(z, test_state, bound);
        break;
    }
    mpz_mod(z, z, bound);
    mpz_clear(bound);
}

static void any_modulus(big m) {
    memset(m.d, 0xff, 8 * m.n);
    switch (test_below(4)) {
    case 0:
        break; /* all ones */
    case 1:
        memset(m.d, 0, 8 * m.n);
        m.d[0] = 1;
        m.d[m.n - 1] = 1; /* as short as may be */
        break;
    case 2:
        m.d[m.n - 1] = 1;
        break;
    default:
        test_modulus(m);
        break;
    }
}

/* r = a b / R mod m, and < 2m */
static void check_product(const uint64_t *r, const mpz_t a, const mpz_t b, const mpz_t m, size_t words, size_t bits) {
    mpz_t got, want, twice;
    mpz_inits(got, want, twice, NULL);
    value_of(got, r, words);
    mpz_mul_ui(twice, m, 2);
    CHECK(mpz_cmp(got, twice) < 0);
    mpz_mul_2exp(got, got, bits);
    mpz_mul(want, a, b);
    CHECK(mpz_congruent_p(got, want, m) != 0);
    mpz_clears(got, want, twice, NULL);
}

static void test_products(void *unused) {
    mpz_t m, a, b, c;
    mpz_inits(m, a, b, c, NULL);
    for (size_t round = 0; round < 10 * ROUNDS; round++) {
        uint64_t value[BIG_MODULUS_LIMBS];
        uint64_t x[MONTGOMERY_WORDS];
        uint64_t y[MONTGOMERY_WORDS];
        uint64_t r[MONTGOMERY_WORDS];
        modulus by;
        const big n = {value, widths[round % 3]};
        any_modulus(n);
        modulus_init(&by, n);
        test_to_mpz(m, n);
        factor(a, m, 4);
        factor(b, m, 4);
        element_of(x, a);
        element_of(y, b);
        ifma_mul(r, x, y, &by);
        check_product(r, a, b, m, by.words, r_bits(&by));
        ifma_mul(y, y, y, &by);
        check_product(y, b, b, m, by.words, r_bits(&by));

        /* Doubled once, a product is still a factor. */
        value_of(c, r, by.words);
        const uint64_t flag = test_below(2);
        ifma_double_if(r, flag, &by);
        mpz_mul_2exp(c, c, flag);
        value_of(b, r, by.words);
        CHECK(mpz_cmp(b, c) == 0);
        ifma_mul(r, r, x, &by);
        check_product(r, c, a, m, by.words, r_bits(&by));

        /* What leaves is < m, whatever it was. */
        uint64_t left[BIG_MODULUS_LIMBS];
        ifma_leave(left, x, &by);
        test_to_mpz(c, (big){left, n.n});
        CHECK(mpz_cmp(c, m) < 0);
        mpz_mul_2exp(c, c, r_bits(&by));
        CHECK(mpz_congruent_p(c, a, m) != 0);
    }
    mpz_clears(m, a, b, c, NULL);
    (void)unused;
}

/* Any limbs may enter, also those of numbers beyond a short modulus; R^2 itself, which is < 4m, is one factor of that. */
static void test_entering(void *unused) {
    mpz_t m, a, b;
    mpz_inits(m, a, b, NULL);
    for (size_t round = 0; round < 3 * ROUNDS; round++) {
        uint64_t value[BIG_MODULUS_LIMBS];
        uint64_t limbs[BIG_MODULUS_LIMBS];
        uint64_t r[MONTGOMERY_WORDS];
        modulus by;
        const big n = {value, widths[round % 3]};
        const big x = {limbs, n.n};
        any_modulus(n);
        modulus_init(&by, n);
        test_to_mpz(m, n);
        value_of(b, by.square, by.words);
        mpz_mul_ui(a, m, 4);
        CHECK(mpz_cmp(b, a) < 0);
        memset(limbs, 0xff, sizeof limbs);
        if (round % 2 == 0) {
            test_number(x);
        }
        test_to_mpz(a, x);
        montgomery_enter(r, limbs, &by);
        check_product(r, a, b, m, by.words, r_bits(&by));
        montgomery_shift(r, &by);
        mpz_set_ui(a, 0);
        mpz_setbit(a, 64 * n.n);
        check_product(r, a, b, m, by.words, r_bits(&by));
    }
    mpz_clears(m, a, b, NULL);
    (void)unused;
}

/* Eight numbers at a time, each with a modulus of its own. */
static void test_octets(void *unused) {
    mpz_t m[8], a[8], b[8], c;
    mpz_init(c);
    for (size_t lane = 0; lane < 8; lane++) {
        mpz_inits(m[lane], a[lane], b[lane], NULL);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        uint64_t element[MONTGOMERY_WORDS];
        ifma_octet_modulus octet;
        ifma_octet x, y, r;
        ifma_vector flags;
        for (size_t lane = 0; lane < 8; lane++) {
            uint64_t value[16];
            modulus by;
            any_modulus(BIG_OF(value));
            modulus_init(&by, BIG_OF(value));
            ifma_octet_modulus_set(&octet, lane, &by);
            test_to_mpz(m[lane], BIG_OF(value));
            factor(a[lane], m[lane], 4);
            factor(b[lane], m[lane], 4);
            element_of(element, a[lane]);
            ifma_octet_set(x, lane, element);
            element_of(element, b[lane]);
            ifma_octet_set(y, lane, element);
            flags[lane] = test_below(2);
        }
        ifma_octet_mul(r, x, y, &octet);
        ifma_octet_mul(y, y, y, &octet);
        for (size_t lane = 0; lane < 8; lane++) {
            const size_t bits = IFMA_DIGIT_BITS * IFMA_OCTET_DIGITS;
            ifma_octet_get(element, r, lane);
            check_product(element, a[lane], b[lane], m[lane], IFMA_OCTET_DIGITS, bits);
            value_of(a[lane], element, IFMA_OCTET_DIGITS);
            ifma_octet_get(element, y, lane);
            check_product(element, b[lane], b[lane], m[lane], IFMA_OCTET_DIGITS, bits);
        }
        ifma_octet_double_if(r, &flags);
        for (size_t lane = 0; lane < 8; lane++) {
            ifma_octet_get(element, r, lane);
            value_of(c, element, IFMA_OCTET_DIGITS);
            mpz_mul_2exp(a[lane], a[lane], flags[lane]);
            CHECK(mpz_cmp(c, a[lane]) == 0);
        }
    }
    for (size_t lane = 0; lane < 8; lane++) {
        mpz_clears(m[lane], a[lane], b[lane], NULL);
    }
    mpz_clear(c);
    (void)unused;
}

/* Digits < 2^63 become digits < 2^52, also where one carry runs through many full ones. */
static IFMA_TARGET void normalize(uint64_t *digits, size_t vectors) {
    ifma_vector x[IFMA_VECTORS_MAX];
    for (size_t k = 0; k < vectors; k++) {
        x[k] = ifma_load(digits + 8 * k);
    }
    if (vectors == 3) {
        ifma_normalize(x, 3);
    } else if (vectors == 5) {
        ifma_normalize(x, 5);
    } else {
        ifma_normalize(x, 10);
    }
    for (size_t k = 0; k < vectors; k++) {
        ifma_store(digits + 8 * k, x[k]);
    }
}

static void test_carries(void *unused) {
    static const size_t vectors[] = {3, 5, 10};
    static const uint64_t edges[] = {
        0, 1, IFMA_DIGIT - 1, IFMA_DIGIT, IFMA_DIGIT + 1, 2 * IFMA_DIGIT + 1, ((uint64_t)1 << 63) - 1};
    mpz_t want, digit, got;
    mpz_inits(want, digit, got, NULL);
    for (size_t round = 0; round < 10 * ROUNDS; round++) {
        uint64_t digits[MONTGOMERY_WORDS];
        const size_t words = 8 * vectors[round % 3];
        const size_t likely = test_below(7);
        mpz_set_ui(want, 0);
        for (size_t i = words; i-- > 0;) {
            digits[i] = edges[test_below(4) == 0 ? test_below(7) : likely];
            digits[i] = i == words - 1 ? 0 : digits[i]; /* there is room for what is carried to the top */
            mpz_mul_2exp(want, want, IFMA_DIGIT_BITS);
            mpz_import(digit, 1, -1, 8, 0, 0, &digits[i]);
            mpz_add(want, want, digit);
        }
        normalize(digits, vectors[round % 3]);
        value_of(got, digits, words);
        CHECK(mpz_cmp(got, want) == 0);
    }
    mpz_clears(want, digit, got, NULL);
    (void)unused;
}

int main(void) {
    test_begin(4 * 1024 * 1024);
    if (!ifma_usable(16)) {
        (void)puts("no such instructions here");
    } else {
        test_secretly(test_carries);
        test_secretly(test_products);
        test_secretly(test_entering);
        test_secretly(test_octets);
    }
    test_end();
    return 0;
}
