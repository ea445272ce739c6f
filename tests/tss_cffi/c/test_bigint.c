#include "test.h"

static const size_t widths[] = {1, 2, 3, 4, 5, 16, 17, 20, 32, 36, 64, 77};
enum { WIDTHS = sizeof widths / sizeof widths[0], LIMBS = 160 };

static big number(uint64_t *room, size_t n) {
    const big a = {room, n};
    test_number(a);
    return a;
}

static size_t any_width(void) {
    return widths[test_below(WIDTHS)];
}

static void bytes_come_back(void *unused) {
    (void)unused;
    uint64_t a_d[LIMBS], b_d[LIMBS];
    uint8_t bytes[8 * LIMBS + 8];
    for (int i = 0; i < ROUNDS; i++) {
        const big a = number(a_d, any_width());
        const big b = {b_d, a.n};
        CHECK(big_to_bytes(bytes, 8 * a.n + 5, a));
        CHECK(bytes[0] == 0 && bytes[4] == 0);
        CHECK(big_from_bytes(b, bytes, 8 * a.n + 5) && big_equal(a, b) == 1);

        const size_t len = big_write_var(bytes, 8 * a.n, a);
        CHECK(len == big_bytes_var(a) && (len == 0 || bytes[0] != 0));
        CHECK(big_from_bytes(b, bytes, len) && big_equal(a, b) == 1);
        mpz_t z;
        mpz_init(z);
        mpz_import(z, len, 1, 1, 0, 0, bytes);
        CHECK(test_same(a, z));
        CHECK(big_bits_var(a) == (mpz_sgn(z) == 0 ? 0 : mpz_sizeinbase(z, 2)));
        mpz_clear(z);

        if (len > 0) {
            CHECK(!big_to_bytes(bytes, len - 1, a));
            CHECK(len == 1 || bytes[0] == 0);
        }
        bytes[0] = 1;
        memset(bytes + 1, 0xff, 8 * a.n);
        CHECK(!big_from_bytes(b, bytes, 8 * a.n + 1) && big_is_zero(b) == 1);
    }
    uint64_t zero = 7;
    CHECK(big_from_bytes(big_view(&zero, 1), bytes, 0) && zero == 0);
}

static void integers_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t a_d[LIMBS], b_d[LIMBS], c_d[LIMBS], r_d[LIMBS + 2];
    mpz_t x, y, z, full;
    mpz_inits(x, y, z, full, NULL);
    for (int i = 0; i < 4 * ROUNDS; i++) {
        const big a = number(a_d, any_width());
        const big b = number(b_d, any_width());
        const big c = number(c_d, any_width());
        const size_t wide = a.n > b.n ? a.n : b.n;
        test_to_mpz(x, a);
        test_to_mpz(y, b);

        CHECK(big_less(a, b) == (mpz_cmp(x, y) < 0));
        CHECK(big_equal(a, b) == (mpz_cmp(x, y) == 0) && big_equal(a, a) == 1);
        CHECK(big_is_zero(a) == (mpz_sgn(x) == 0) && big_is_odd(a) == (mpz_odd_p(x) != 0));
        CHECK(big_equal_u64(a, a.d[0]) == (mpz_cmp_ui(x, a.d[0]) == 0));
        const size_t bit = test_below(64 * a.n + 70);
        CHECK(big_bit(a, bit) == (uint64_t)mpz_tstbit(x, bit));

        const big sum = {r_d, wide};
        mpz_set_ui(full, 0);
        mpz_setbit(full, 64 * wide);
        mpz_add(z, x, y);
        const uint64_t carry = big_add(sum, a, b);
        CHECK(carry == (mpz_cmp(z, full) >= 0));
        mpz_fdiv_r(z, z, full);
        CHECK(test_same(sum, z));
        mpz_sub(z, x, y);
        const uint64_t borrow = big_sub(sum, a, b);
        CHECK(borrow == (mpz_sgn(z) < 0));
        mpz_fdiv_r(z, z, full);
        CHECK(test_same(sum, z));

        const size_t product_n = a.n + b.n > c.n ? a.n + b.n : c.n;
        if (product_n <= LIMBS) {
            const big product = {r_d, product_n};
            mpz_mul(z, x, y);
            big_mul(product, a, b);
            CHECK(test_same(product, z));
            CHECK(big_mul_add(product, a, b, c) <= 1);
            test_to_mpz(y, c);
            mpz_add(z, z, y);
            mpz_fdiv_r_2exp(z, z, 64 * product_n);
            CHECK(test_same(product, z));
        }

        const size_t shift = test_below(64 * a.n);
        const big shifted = {r_d, a.n};
        big_shift_right(shifted, a, shift);
        mpz_fdiv_q_2exp(z, x, shift);
        CHECK(test_same(shifted, z));
        const big longer = {r_d, a.n + 1};
        mpz_mul_2exp(z, x, shift % 64);
        big_shift_left(longer, a, shift % 64);
        CHECK(test_same(longer, z));

        big_set(big_view(r_d, a.n + 2), a);
        CHECK(test_same(big_view(r_d, a.n + 2), x) && test_same(big_low(big_view(r_d, a.n + 2), a.n), x));
        big_select(shifted, a, a, 1);
        CHECK(test_same(shifted, x));
    }
    mpz_clears(x, y, z, full, NULL);
}

static void results_may_be_operands(void *unused) {
    (void)unused;
    uint64_t a_d[8], b_d[8], r_d[8], other_d[8] = {0};
    const big a = {a_d, 8}, b = {b_d, 8}, r = {r_d, 8}, other = {other_d, 8};
    for (int i = 0; i < ROUNDS; i++) {
        test_number(a);
        test_number(b);
        const uint64_t carry = big_add(r, a, b);
        big_set(other, a);
        CHECK(big_add(other, other, b) == carry && big_equal(other, r) == 1);
        big_set(other, b);
        const uint64_t borrow = big_sub(r, a, b);
        CHECK(big_sub(other, a, other) == borrow && big_equal(other, r) == 1);
        big_set(other, a);
        big_shift_left(r, a, 77);
        big_shift_left(other, other, 77);
        CHECK(big_equal(other, r) == 1);
        big_shift_right(r, b, 65);
        big_shift_right(b, b, 65);
        CHECK(big_equal(b, r) == 1);
        test_modulus(b);
        big_mod(r, a, b);
        big_mod(a, a, b);
        CHECK(big_equal(a, r) == 1);
        big_select(r, a, b, 0);
        CHECK(big_equal(r, b) == 1);
        big_select(r, a, b, 1);
        CHECK(big_equal(r, a) == 1);
    }
    big_wipe(a);
    CHECK(big_is_zero(a) == 1);
}

static void division_agrees_with_gmp(void *unused) {
    (void)unused;
    uint64_t a_d[LIMBS], m_d[LIMBS], q_d[LIMBS], r_d[LIMBS];
    mpz_t x, y, z;
    mpz_inits(x, y, z, NULL);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        const big a = number(a_d, any_width());
        const big m = {m_d, any_width()};
        const big q = {q_d, a.n};
        const big r = {r_d, m.n};
        test_modulus(m);
        if (test_below(2) == 0 && (m.n > 1 || m.d[0] > 2)) {
            m.d[0] &= ~(uint64_t)1;
        }
        test_to_mpz(x, a);
        test_to_mpz(y, m);
        big_divide(q, r, a, m);
        mpz_fdiv_q(z, x, y);
        CHECK(test_same(q, z));
        mpz_fdiv_r(z, x, y);
        CHECK(test_same(r, z));
        big_zero(r);
        big_mod(r, a, m);
        CHECK(test_same(r, z));

        m.d[0] |= 1;
        if (a.n + m.n <= LIMBS) {
            const big product = {q_d, a.n + m.n};
            const big quotient = {r_d, a.n};
            big_mul(product, a, m);
            big_divide_exact(quotient, product, m);
            CHECK(big_equal(quotient, a) == 1);
        }
    }
    mpz_clears(x, y, z, NULL);
}

static void inverses_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t a_d[64], m_d[64], r_d[64];
    mpz_t x, y, z;
    mpz_inits(x, y, z, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const size_t n = widths[test_below(8)];
        const big a = {a_d, n};
        const big m = {m_d, n};
        const big r = {r_d, n};
        test_modulus(m);
        test_residue(a, m);
        test_to_mpz(x, a);
        test_to_mpz(y, m);
        const int exists = mpz_invert(z, x, y) != 0;
        CHECK(big_inverse_odd(r, a, m) == (uint64_t)exists);
        CHECK(!exists || test_same(r, z));
        CHECK(big_inverse_var(r, a, m) == exists);
        CHECK(exists ? test_same(r, z) : big_is_zero(r) == 1);

        /* Of an odd number, modulo anything: the roles change. */
        test_modulus(a);
        test_number(m);
        m.d[n - 1] |= 2;
        test_to_mpz(x, a);
        test_to_mpz(y, m);
        const int exists_too = mpz_invert(z, x, y) != 0;
        CHECK(big_inverse_of_odd(r, a, m) == (uint64_t)exists_too);
        CHECK(!exists_too || test_same(r, z));
    }
    mpz_clears(x, y, z, NULL);
}

static void public_functions_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t a_d[32], b_d[32], r_d[32];
    mpz_t x, y, z;
    mpz_inits(x, y, z, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const big a = number(a_d, widths[test_below(9)]);
        const big b = {b_d, widths[test_below(9)]};
        const big r = {r_d, a.n};
        test_modulus(b);
        test_to_mpz(x, a);
        test_to_mpz(y, b);
        CHECK(big_jacobi_var(a, b) == mpz_jacobi(x, y));
        mpz_gcd(z, x, y);
        CHECK(big_coprime_var(a, b) == (mpz_cmp_ui(z, 1) == 0));
        big_isqrt_var(r, a);
        mpz_sqrt(z, x);
        CHECK(test_same(r, z));
        mpz_set_ui(z, 1);
        for (unsigned long d = 2; d < 1000; d++) {
            if (mpz_sgn(x) == 0 || mpz_divisible_ui_p(x, d)) {
                mpz_set_ui(z, 0);
            }
        }
        CHECK(big_has_small_factor_var(a) == (mpz_sgn(z) == 0));
    }
    const big p = {a_d, 8};
    test_prime(p, 512);
    CHECK(big_probably_prime_var(p));
    p.d[0] += 2;
    p.d[0] -= p.d[0] % 3 == 0 ? 0 : 1;
    CHECK(!big_probably_prime_var(p));
    mpz_clears(x, y, z, NULL);
}

static void residues_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t a_d[LIMBS], b_d[64], m_d[64], r_d[64];
    modulus m;
    mpz_t x, y, z, n;
    mpz_inits(x, y, z, n, NULL);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        const big value = {m_d, widths[test_below(11)]};
        const big a = {a_d, value.n};
        const big b = {b_d, value.n};
        const big r = {r_d, value.n};
        test_modulus(value);
        modulus_init(&m, value);
        CHECK(big_equal(modulus_value(&m), value) == 1);
        test_to_mpz(n, value);
        test_residue(a, value);
        test_residue(b, value);
        test_to_mpz(x, a);
        test_to_mpz(y, b);
        mpz_add(z, x, y);
        mpz_mod(z, z, n);
        mod_add(r, a, b, &m);
        CHECK(test_same(r, z));
        mpz_sub(z, x, y);
        mpz_mod(z, z, n);
        mod_sub(r, a, b, &m);
        CHECK(test_same(r, z));
        mpz_neg(z, x);
        mpz_mod(z, z, n);
        mod_negate(r, a, &m);
        CHECK(test_same(r, z));
        mpz_mul(z, x, y);
        mpz_mod(z, z, n);
        mod_mul(r, a, b, &m);
        CHECK(test_same(r, z));
        big_set(r, a);
        mod_mul(r, r, b, &m);
        CHECK(test_same(r, z));

        const big any = number(a_d, any_width());
        test_to_mpz(x, any);
        mpz_mod(z, x, n);
        mod_reduce(r, any, &m);
        CHECK(test_same(r, z));
    }
    mpz_clears(x, y, z, n, NULL);
}

static void montgomery_form_holds(void *unused) {
    (void)unused;
    uint64_t m_d[64], a_d[64], r_d[64];
    uint64_t x[MONTGOMERY_WORDS], y[MONTGOMERY_WORDS], table[8 * MONTGOMERY_WORDS];
    modulus m;
    mpz_t z, n;
    mpz_inits(z, n, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const big value = {m_d, widths[test_below(11)]};
        const big a = {a_d, value.n};
        const big r = {r_d, value.n};
        test_modulus(value);
        modulus_init(&m, value);
        test_to_mpz(n, value);

        test_number(a); /* not reduced */
        test_to_mpz(z, a);
        montgomery_enter(x, a.d, &m);
        montgomery_leave(r.d, x, &m);
        mpz_mod(z, z, n);
        CHECK(test_same(r, z));
        montgomery_double_if(x, 0, &m);
        montgomery_leave(r.d, x, &m);
        CHECK(test_same(r, z));
        montgomery_double_if(x, 1, &m);
        montgomery_leave(r.d, x, &m);
        mpz_mul_2exp(z, z, 1);
        mpz_mod(z, z, n);
        CHECK(test_same(r, z));

        /* A long chain of products, so that what is not fully reduced inside has time to grow. */
        montgomery_square(y, x, &m);
        mpz_mul(z, z, z);
        for (int j = 0; j < 20; j++) {
            montgomery_mul(y, y, y, &m);
            montgomery_square(y, y, &m);
            montgomery_mul(y, y, x, &m);
        }
        mpz_t e;
        mpz_init_set_ui(e, 2);
        for (int j = 0; j < 20; j++) {
            mpz_mul_ui(e, e, 4);
            mpz_add_ui(e, e, 1);
        }
        montgomery_leave(r.d, x, &m);
        test_to_mpz(z, r);
        mpz_powm(z, z, e, n);
        montgomery_leave(r.d, y, &m);
        CHECK(test_same(r, z));
        mpz_clear(e);

        montgomery_one(y, &m);
        montgomery_leave(r.d, y, &m);
        CHECK(big_equal_u64(r, 1) == 1);
        montgomery_shift(y, &m);
        montgomery_leave(r.d, y, &m);
        mpz_set_ui(z, 0);
        mpz_setbit(z, 64 * value.n);
        mpz_mod(z, z, n);
        CHECK(test_same(r, z));

        for (size_t j = 0; j < 8 * m.words; j++) {
            table[j] = j;
        }
        for (uint64_t j = 0; j < 8; j++) {
            montgomery_gather(y, table, 8, j, &m);
            CHECK(memcmp(y, table + j * m.words, 8 * m.words) == 0);
        }
    }
    mpz_clears(z, n, NULL);
}

/* Carries that run through many full digits are rare; here they are not. (The kernel's own functions run only on such machines, or emulated.) */
#ifdef TSS_IFMA_EMULATED
static void every_carry_arrives(void *unused) {
    (void)unused;
    ifma_vector x[IFMA_VECTORS_MAX];
    uint64_t digits[8 * IFMA_VECTORS_MAX], limbs[66];
    mpz_t z, y;
    mpz_inits(z, y, NULL);
    for (int i = 0; i < 5 * ROUNDS; i++) {
        const size_t vectors = i % 3 == 0 ? 3 : i % 3 == 1 ? 5 : 10;
        mpz_set_ui(z, 0);
        for (size_t j = 8 * vectors; j-- > 0;) {
            uint64_t digit = 0;
            switch (j + 2 < 8 * vectors ? test_below(5) : 5) {
            case 0:
                digit = IFMA_DIGIT + test_below(3);
                break;
            case 1:
                test_number(big_view(&digit, 1));
                digit >>= 3; /* < 2^61 */
                break;
            case 2:
                digit = test_below(3);
                break;
            case 5: /* no overflow at the top */
                digit = 1;
                break;
            default:
                digit = IFMA_DIGIT;
                break;
            }
            x[j / 8][j % 8] = digit;
            mpz_mul_2exp(z, z, IFMA_DIGIT_BITS);
            mpz_set_ui(y, digit);
            mpz_add(z, z, y);
        }
        ifma_normalize(x, vectors);
        for (size_t j = 0; j < 8 * vectors; j++) {
            digits[j] = x[j / 8][j % 8];
            CHECK(digits[j] <= IFMA_DIGIT);
        }
        const size_t n = 52 * 8 * vectors / 64;
        ifma_to_limbs(limbs, n, digits, 8 * vectors);
        CHECK(test_same(big_view(limbs, n + 1), z));
    }
    mpz_clears(z, y, NULL);
}
#endif

/* z = product of base^exponent modulo n */
static void power_product(mpz_t z, const big *base, const big *exponent, size_t count, const mpz_t n) {
    mpz_t x, y;
    mpz_inits(x, y, NULL);
    mpz_set_ui(z, 1);
    mpz_mod(z, z, n);
    for (size_t i = 0; i < count; i++) {
        test_to_mpz(x, base[i]);
        test_to_mpz(y, exponent[i]);
        mpz_powm(x, x, y, n);
        mpz_mul(z, z, x);
        mpz_mod(z, z, n);
    }
    mpz_clears(x, y, NULL);
}

/* ---- Eight at a time ---- */

enum { OCTET_LIMBS = 16, OCTET_EDGES = 4 };

/* Moduli of 1024 bits at the edges of what there is, then any. */
static void octet_modulus(big m, size_t which) {
    mpz_t z;
    mpz_init(z);
    switch (which) {
    case 0: /* every bit set */
        mpz_setbit(z, 1024);
        mpz_sub_ui(z, z, 1);
        break;
    case 1: /* the least that has as many limbs */
        mpz_setbit(z, 960);
        mpz_add_ui(z, z, 1);
        break;
    case 2: /* (4^p - 1) / 3 is composite for a prime p > 3, and Fermat's test with base 2 takes it for a prime */
        mpz_setbit(z, 2 * 509);
        mpz_sub_ui(z, z, 1);
        mpz_divexact_ui(z, z, 3);
        break;
    case 3: /* digits of zeros */
        mpz_setbit(z, 1023);
        mpz_add_ui(z, z, 1);
        break;
    default:
        test_modulus(m);
        mpz_clear(z);
        return;
    }
    test_from_mpz(m, z);
    mpz_clear(z);
}

/* The kernel's own product: of anything below 4 m, a number below 2 m with full digits, that is a b / R modulo m. */
static void octet_products_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t value_d[OCTET_LIMBS], limbs[OCTET_LIMBS + 2], element[MONTGOMERY_WORDS];
    modulus m[8];
    ifma_octet_modulus octet;
    ifma_octet a, b, r;
    ifma_vector flags;
    mpz_t x[8], y[8], z, n, inverse;
    mpz_inits(z, n, inverse, NULL);
    for (size_t lane = 0; lane < 8; lane++) {
        mpz_inits(x[lane], y[lane], NULL);
    }
    for (int i = 0; i < 1 + ROUNDS / 4; i++) {
        for (size_t lane = 0; lane < 8; lane++) {
            octet_modulus((big){value_d, OCTET_LIMBS}, test_below(OCTET_EDGES + 2));
            modulus_init(&m[lane], (big){value_d, OCTET_LIMBS});
            ifma_octet_modulus_set(&octet, lane, &m[lane]);
            test_to_mpz(n, modulus_value(&m[lane]));
            for (size_t operand = 0; operand < 2; operand++) {
                mpz_t *to = operand == 0 ? &x[lane] : &y[lane];
                const unsigned long times = (unsigned long)test_below(5);
                mpz_mul_ui(*to, n, times);
                if (times == 4 || (times != 0 && test_below(2) == 0)) {
                    mpz_sub_ui(*to, *to, 1 + test_below(2));
                } else if (test_below(2) == 0) {
                    mpz_urandomm(z, test_state, n);
                    mpz_add(*to, *to, z);
                }
                test_from_mpz(big_view(limbs, OCTET_LIMBS + 2), *to);
                ifma_to_digits(element, IFMA_OCTET_DIGITS, limbs, OCTET_LIMBS + 2);
                ifma_octet_set(operand == 0 ? a : b, lane, element);
            }
            flags[lane] = test_below(2);
        }
        ifma_octet_mul(r, a, b, &octet);
        for (size_t lane = 0; lane < 8; lane++) {
            for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
                CHECK(r[j][lane] <= IFMA_DIGIT);
            }
            ifma_octet_get(element, r, lane);
            ifma_to_limbs(limbs, OCTET_LIMBS + 1, element, IFMA_OCTET_DIGITS);
            test_to_mpz(z, big_view(limbs, OCTET_LIMBS + 2));
            test_to_mpz(n, modulus_value(&m[lane]));
            mpz_set_ui(inverse, 0);
            mpz_setbit(inverse, IFMA_OCTET_DIGITS * IFMA_DIGIT_BITS);
            CHECK(mpz_invert(inverse, inverse, n) != 0);
            mpz_mul(x[lane], x[lane], y[lane]);
            mpz_mul(x[lane], x[lane], inverse);
            CHECK(mpz_congruent_p(x[lane], z, n) != 0);
            mpz_set(x[lane], z);
            mpz_mul_ui(n, n, 2);
            CHECK(mpz_cmp(z, n) < 0);
        }
        ifma_octet_double_if(r, &flags);
        for (size_t lane = 0; lane < 8; lane++) {
            ifma_octet_get(element, r, lane);
            ifma_to_limbs(limbs, OCTET_LIMBS + 1, element, IFMA_OCTET_DIGITS);
            mpz_mul_2exp(x[lane], x[lane], flags[lane]);
            CHECK(test_same(big_view(limbs, OCTET_LIMBS + 2), x[lane]));
        }
    }
    for (size_t lane = 0; lane < 8; lane++) {
        mpz_clears(x[lane], y[lane], NULL);
    }
    mpz_clears(z, n, inverse, NULL);
}

/* Powers of 0, 1, 2, m - 1, m - 2 and of any, with the exponents 0, 1, 2, all ones and any; results may be bases. */
static void octet_powers_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t m_d[OCTET_LIMBS], base_d[8][OCTET_LIMBS], result_d[8][OCTET_LIMBS], exponent_d[OCTET_LIMBS];
    big base[8], result[8];
    modulus m;
    mpz_t z, n;
    mpz_inits(z, n, NULL);
    for (size_t which = 0; which < OCTET_EDGES + 2; which++) {
        const big value = {m_d, OCTET_LIMBS};
        octet_modulus(value, which);
        modulus_init(&m, value);
        test_to_mpz(n, value);
        for (size_t form = 0; form < 5; form++) {
            const big exponent = {exponent_d, form == 3 ? OCTET_LIMBS : 1 + test_below(3)};
            big_zero(exponent);
            exponent.d[0] = form < 3 ? form : 0;
            if (form == 3) {
                memset(exponent.d, 0xff, 8 * exponent.n);
            } else if (form == 4) {
                test_number(exponent);
            }
            const unsigned window = form == 3 ? 5 : 1 + (unsigned)test_below(5);
            for (size_t lane = 0; lane < 8; lane++) {
                base[lane] = (big){base_d[lane], OCTET_LIMBS};
                result[lane] = (big){result_d[lane], OCTET_LIMBS};
                big_zero(base[lane]);
                if (lane < 3) {
                    base[lane].d[0] = lane;
                } else if (lane < 5) {
                    mpz_sub_ui(z, n, lane - 2);
                    test_from_mpz(base[lane], z);
                } else {
                    test_residue(base[lane], value);
                }
            }
            ifma_exp_octet(result, base, exponent, window, &m);
            for (size_t lane = 0; lane < 8; lane++) {
                power_product(z, &base[lane], &exponent, 1, n);
                CHECK(test_same(result[lane], z));
            }
            ifma_exp_octet(base, base, exponent, window, &m);
            for (size_t lane = 0; lane < 8; lane++) {
                CHECK(big_equal(base[lane], result[lane]) == 1);
            }
        }
    }
    mpz_clears(z, n, NULL);
}

/* Eight moduli of their own: primes, composites, and those composites that it cannot tell from primes. */
static void fermat_agrees_with_gmp(void *unused) {
    (void)unused;
    uint64_t value_d[OCTET_LIMBS], passes[8];
    const big value = {value_d, OCTET_LIMBS};
    modulus m[8];
    mpz_t x, n, two;
    size_t passed = 0;
    mpz_inits(x, n, NULL);
    mpz_init_set_ui(two, 2);
    for (int i = 0; i < 2 + ROUNDS / 50; i++) {
        for (size_t lane = 0; lane < 8; lane++) {
            const size_t which = (lane + (size_t)i) % 8;
            if (which == 7) {
                test_prime(value, 1024);
            } else if (which == 6) {
                test_prime(value, 961 + test_below(63));
            } else {
                octet_modulus(value, which);
            }
            modulus_init(&m[lane], value);
        }
        ifma_fermat_octet(passes, m);
        for (size_t lane = 0; lane < 8; lane++) {
            test_to_mpz(n, modulus_value(&m[lane]));
            mpz_sub_ui(x, n, 1);
            mpz_powm(x, two, x, n);
            CHECK(passes[lane] == (mpz_cmp_ui(x, 1) == 0 ? 1 : 0));
            passed += passes[lane];
        }
    }
    CHECK(passed >= 6); /* two primes and a pseudoprime each time */
    mpz_clears(x, n, two, NULL);
}

enum { MANY = 40 };

static void powers_agree_with_gmp(void *unused) {
    (void)unused;
    uint64_t base_d[MANY][64], exponent_d[MANY][80], result_d[MANY][64], m_d[64];
    big base[MANY], exponent[MANY], result[MANY];
    modulus m;
    mpz_t z, n;
    mpz_inits(z, n, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const big value = {m_d, widths[test_below(i % 10 == 0 ? 11 : 8)]};
        test_modulus(value);
        modulus_init(&m, value);
        test_to_mpz(n, value);
        const size_t count = i % 16 == 0 ? 1 + test_below(MANY) : 1 + test_below(MOD_PRODUCT_MAX);
        for (size_t k = 0; k < count; k++) {
            base[k] = (big){base_d[k], value.n};
            exponent[k] = (big){exponent_d[k], 1 + test_below(i % 10 == 1 ? 77 : 8)};
            result[k] = (big){result_d[k], value.n};
            test_residue(base[k], value);
            test_number(exponent[k]);
        }
        power_product(z, base, exponent, count, n);
        CHECK(mod_exp_product_var(result[0], base, exponent, count, &m));
        CHECK(test_same(result[0], z));
        if (count <= MOD_PRODUCT_MAX) {
            big_zero(result[0]);
            mod_exp_product(result[0], base, exponent, count, &m);
            CHECK(test_same(result[0], z));
        }
        power_product(z, base, exponent, 1, n);
        mod_exp(result[0], base[0], exponent[0], &m);
        CHECK(test_same(result[0], z));
        mod_exp_var(result[0], base[0], exponent[0], &m);
        CHECK(test_same(result[0], z));

        mod_exp_many(result, base, count, exponent[0], &m);
        for (size_t k = 0; k < count; k++) {
            power_product(z, &base[k], exponent, 1, n);
            CHECK(test_same(result[k], z));
            big_zero(result[k]);
        }
        mod_exp_many_var(base, base, count, exponent[0], &m);
        mod_exp_many(result, result, count, exponent[0], &m);
        for (size_t k = 0; k < count; k++) {
            mpz_set_ui(z, big_is_zero(exponent[0]) == 1 ? 1 : 0);
            CHECK(test_same(result[k], z)); /* 0^e */
        }
        mod_exp_many_var(result, base, 0, exponent[0], &m);
    }
    mpz_clears(z, n, NULL);
}

static void many_powers_agree(void *unused) {
    (void)unused;
    uint64_t base_d[MANY][64], one_d[64], result_d[MANY][64], m_d[64], exponent_d[40];
    big base[MANY], result[MANY];
    modulus m;
    for (int i = 0; i < ROUNDS / 10; i++) {
        const big value = {m_d, widths[test_below(11)]};
        const big one = {one_d, value.n};
        const big exponent = number(exponent_d, 1 + test_below(6));
        const size_t count = 1 + test_below(MANY);
        test_modulus(value);
        modulus_init(&m, value);
        for (size_t k = 0; k < count; k++) {
            base[k] = (big){base_d[k], value.n};
            result[k] = (big){result_d[k], value.n};
            test_residue(base[k], value);
        }
        for (int secret = 0; secret < 2; secret++) {
            (secret != 0 ? mod_exp_many : mod_exp_many_var)(result, base, count, exponent, &m);
            for (size_t k = 0; k < count; k++) {
                mod_exp(one, base[k], exponent, &m);
                CHECK(big_equal(one, result[k]) == 1);
            }
        }
    }
}

static void fixed_bases_agree(void *unused) {
    (void)unused;
    uint64_t base_d[3][64], exponent_d[3][80], r_d[64], s_d[64], m_d[64];
    modulus m;
    for (int i = 0; i < ROUNDS / 2; i++) {
        const fixed_base *table[3] = {NULL};
        fixed_base *made[3];
        big base[3], exponent[3];
        const big value = {m_d, widths[test_below(i % 10 == 0 ? 11 : 7)]};
        const big r = {r_d, value.n};
        const big s = {s_d, value.n};
        test_modulus(value);
        modulus_init(&m, value);
        const size_t count = 1 + test_below(3);
        for (size_t k = 0; k < count; k++) {
            const size_t bits = 1 + test_below(i % 10 == 1 ? 4900 : 300);
            base[k] = (big){base_d[k], value.n};
            exponent[k] = (big){exponent_d[k], BIG_LIMBS(bits)};
            test_residue(base[k], value);
            test_number(exponent[k]);
            if (bits % 64 != 0) {
                exponent[k].d[exponent[k].n - 1] &= ((uint64_t)1 << (bits % 64)) - 1;
            }
            made[k] = fixed_base_new(
                &m, base[k], bits, test_below(400), test_below(2) == 0, test_below(2) == 0 ? 1 : 65536,
                test_below(2) == 0 ? FIXED_HEAP : FIXED_ARENA);
            CHECK(made[k] != NULL);
            table[k] = made[k];
        }
        mod_exp_product(s, base, exponent, count, &m);
        fixed_exp_product(r, table, exponent, count);
        CHECK(big_equal(r, s) == 1);
        big_zero(r);
        fixed_exp_product_var(r, table, exponent, count);
        CHECK(big_equal(r, s) == 1);
        for (size_t k = 0; k < count; k++) {
            fixed_base_free(made[k]);
        }
    }
    fixed_base_free(NULL);
}

static void known_factors_agree(void *unused) {
    (void)unused;
    uint64_t p_d[16], q_d[16], base_d[4][80], exponent_d[4][80], r_d[64], rp_d[32], rq_d[32];
    big base[4], exponent[4], results[4];
    uint64_t results_d[4][32];
    mpz_t z, n, nn, x, y;
    mpz_inits(z, n, nn, x, y, NULL);
    crt *c = secret_alloc(sizeof *c);
    CHECK(c != NULL);
    for (int i = 0; i < ROUNDS / 4; i++) {
        const size_t k = i % 8 == 0 ? 16 : 1 + test_below(5);
        const big p = {p_d, k};
        const big q = {q_d, k};
        test_prime(p, 64 * k);
        do {
            test_prime(q, 64 * k);
        } while (big_equal(p, q) == 1);
        CHECK(crt_init(c, p, q) == 1);
        test_to_mpz(x, p);
        test_to_mpz(y, q);
        mpz_mul(n, x, y);
        mpz_mul(nn, n, n);
        CHECK(test_same(modulus_value(&c->n), n));

        const size_t count = 1 + test_below(MOD_PRODUCT_MAX);
        for (size_t j = 0; j < count; j++) {
            base[j] = (big){base_d[j], 1 + test_below(4 * k)};
            exponent[j] = (big){exponent_d[j], 1 + test_below(5 * k < 77 ? 5 * k : 77)};
            results[j] = (big){results_d[j], 2 * k};
            do {
                test_number(base[j]);
                test_to_mpz(x, base[j]);
                mpz_gcd(z, x, n);
            } while (mpz_cmp_ui(z, 1) != 0);
            test_number(exponent[j]);
        }
        const big r = {r_d, 2 * k};
        power_product(z, base, exponent, count, n);
        crt_exp_product(r, base, exponent, count, c);
        CHECK(test_same(r, z));
        big_zero(r);
        crt_exp_product_var(r, base, exponent, count, c);
        CHECK(test_same(r, z));
        crt_exp_many(results, base, count, exponent[0], c);
        for (size_t j = 0; j < count; j++) {
            power_product(z, &base[j], exponent, 1, n);
            CHECK(test_same(results[j], z));
            crt_exp(r, base[j], exponent[0], c);
            CHECK(test_same(r, z));
        }

        const big rr = {r_d, 4 * k};
        power_product(z, base, exponent, count, nn);
        crt_exp_product_square(rr, base, exponent, count, c);
        CHECK(test_same(rr, z));
        big_zero(rr);
        crt_exp_product_square_var(rr, base, exponent, count, c);
        CHECK(test_same(rr, z));
        test_to_mpz(x, base[0]);
        mpz_powm(z, x, n, nn);
        crt_nth_power(rr, base[0], c);
        CHECK(test_same(rr, z));

        mpz_mod(z, x, n);
        const big rp = {rp_d, k};
        const big rq = {rq_d, k};
        mod_reduce(rp, base[0], &c->p);
        mod_reduce(rq, base[0], &c->q);
        crt_combine(r, rp, rq, c);
        CHECK(test_same(r, z));

        crt_reduce_exponent(rp, exponent[0], &c->p_half);
        test_to_mpz(x, p);
        mpz_sub_ui(x, x, 1);
        test_to_mpz(y, exponent[0]);
        mpz_mod(z, y, x);
        CHECK(test_same(rp, z));
    }
    const big p = {p_d, 16};
    test_prime(p, 1024);
    CHECK(crt_init(c, p, p) == 0); /* not coprime */
    secret_free(c);
    mpz_clears(z, n, nn, x, y, NULL);
}

static void random_numbers_stay_below(void *unused) {
    (void)unused;
    uint64_t bound_d[20], r_d[21];
    for (int i = 0; i < ROUNDS; i++) {
        const big bound = number(bound_d, 1 + test_below(20));
        const big r = {r_d, bound.n + 1};
        if (big_less(big_view((const uint64_t[]){1}, 1), bound) == 1) {
            random_below(r, bound);
            CHECK(big_less(r, bound) == 1);
            random_unit(r, bound);
            CHECK(big_less(r, bound) == 1 && big_is_zero(r) == 0);
        }
    }
    /* Each value below a small bound comes up, and about equally often. */
    size_t seen[5] = {0};
    const uint64_t five = 5;
    for (int i = 0; i < 5000; i++) {
        random_below(big_view(r_d, 1), big_view(&five, 1));
        seen[r_d[0]]++;
    }
    for (size_t i = 0; i < 5; i++) {
        CHECK(seen[i] > 800 && seen[i] < 1200); /* 7 standard deviations */
    }
    const uint64_t one = 1;
    random_below(big_view(r_d, 1), big_view(&one, 1));
    CHECK(r_d[0] == 0);
    const uint64_t two = 2;
    random_unit(big_view(r_d, 1), big_view(&two, 1));
    CHECK(r_d[0] == 1);
}

int main(void) {
    test_begin(4 << 20);
    CHECK(random_works());
    test_secretly(bytes_come_back);
    test_secretly(integers_agree_with_gmp);
    test_secretly(results_may_be_operands);
    test_secretly(division_agrees_with_gmp);
    test_secretly(inverses_agree_with_gmp);
    test_secretly(public_functions_agree_with_gmp);
    test_secretly(residues_agree_with_gmp);
    test_secretly(montgomery_form_holds);
#ifdef TSS_IFMA_EMULATED
    test_secretly(every_carry_arrives);
#endif
    /* Where there is no such kernel there is nothing to test; emulated, there always is. */
    if (ifma_usable(OCTET_LIMBS)) {
        test_secretly(octet_products_agree_with_gmp);
        test_secretly(octet_powers_agree_with_gmp);
        test_secretly(fermat_agrees_with_gmp);
    }
    test_secretly(powers_agree_with_gmp);
    test_secretly(many_powers_agree);
    test_secretly(fixed_bases_agree);
    test_secretly(known_factors_agree);
    test_secretly(random_numbers_stay_below);
    test_end();
    return 0;
}
