#ifndef TSS_MONTGOMERY_IFMA_IMPL_H
#define TSS_MONTGOMERY_IFMA_IMPL_H

#include "montgomery_ifma.h"
#include "secret.h"

#include <string.h>

/* ---- Eight digits at a time ----
 *
 * Written with the compilers' own vectors and two instructions. Where there are none these are written out: with TSS_IFMA_EMULATED, so that
 * valgrind, which does not know them, can run the same kernel. TSS_IFMA_OFF leaves the other kernel alone. TSS_IFMA_UNSANITIZED takes this
 * one out of what the sanitizers watch. */

typedef uint64_t ifma_vector __attribute__((vector_size(64)));
typedef uint64_t ifma_unaligned __attribute__((vector_size(64), aligned(8), may_alias));

__extension__ typedef unsigned __int128 ifma_wide;

#define IFMA_DIGIT_BITS 52u
#define IFMA_DIGIT (((uint64_t)1 << IFMA_DIGIT_BITS) - 1)
#define IFMA_VECTORS_MAX 10u

static bool ifma_machine(void) {
#if defined(TSS_IFMA_EMULATED)
    return true;
#elif defined(TSS_IFMA_OFF) || !defined(__x86_64__)
    return false;
#else
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
#endif
}

#if defined(__x86_64__) && !defined(TSS_IFMA_EMULATED)

#include <immintrin.h>

#ifdef TSS_IFMA_UNSANITIZED
#define IFMA_SANITIZED __attribute__((no_sanitize("address"), no_sanitize("undefined")))
#else
#define IFMA_SANITIZED
#endif
#define IFMA_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512ifma,bmi2"))) IFMA_SANITIZED

/* sum + the low, or the high, 52 bits of x y, in each lane */
#define ifma_low(sum, x, y) ((ifma_vector)_mm512_madd52lo_epu64((__m512i)(sum), (__m512i)(x), (__m512i)(y)))
#define ifma_high(sum, x, y) ((ifma_vector)_mm512_madd52hi_epu64((__m512i)(sum), (__m512i)(x), (__m512i)(y)))

/* A bit for each lane: digits that are larger than a digit may be, and digits that are full; and 1 added where a bit is set. */
#define ifma_over(x) ((uint64_t)_mm512_cmpgt_epu64_mask((__m512i)(x), (__m512i)ifma_all(IFMA_DIGIT)))
#define ifma_full(x) ((uint64_t)_mm512_cmpeq_epu64_mask((__m512i)(x), (__m512i)ifma_all(IFMA_DIGIT)))
#define ifma_increment(x, bits) \
    ((x) = (ifma_vector)_mm512_mask_add_epi64((__m512i)(x), (__mmask8)(bits), (__m512i)(x), (__m512i)ifma_all(1)))

#else

#define IFMA_TARGET

/* Macros, because how a function takes such vectors is not defined where there are no registers for them. */
#define ifma_low(sum, x, y) ifma_multiply((sum), (x), (y), (uint64_t)ifma_product_ & IFMA_DIGIT)
#define ifma_high(sum, x, y) ifma_multiply((sum), (x), (y), (uint64_t)(ifma_product_ >> IFMA_DIGIT_BITS))
#define ifma_multiply(sum, x, y, part)                                                                         \
    __extension__({                                                                                            \
        ifma_vector ifma_sum_ = (sum);                                                                         \
        const ifma_vector ifma_x_ = (x);                                                                       \
        const ifma_vector ifma_y_ = (y);                                                                       \
        for (size_t lane_ = 0; lane_ < 8; lane_++) {                                                           \
            const ifma_wide ifma_product_ = (ifma_wide)(ifma_x_[lane_] & IFMA_DIGIT) * (ifma_y_[lane_] & IFMA_DIGIT); \
            ifma_sum_[lane_] += (part);                                                                        \
        }                                                                                                      \
        ifma_sum_;                                                                                             \
    })
#define ifma_over(x) ifma_bits((x), ct_is_zero(ifma_digit_ >> IFMA_DIGIT_BITS) ^ 1)
#define ifma_full(x) ifma_bits((x), ct_is_zero(ifma_digit_ ^ IFMA_DIGIT))
#define ifma_bits(x, bit)                              \
    __extension__({                                    \
        uint64_t ifma_bits_ = 0;                       \
        for (size_t lane_ = 0; lane_ < 8; lane_++) {   \
            const uint64_t ifma_digit_ = (x)[lane_];   \
            ifma_bits_ |= (bit) << lane_;              \
        }                                              \
        ifma_bits_;                                    \
    })
#define ifma_increment(x, bits)                        \
    do {                                               \
        for (size_t lane_ = 0; lane_ < 8; lane_++) {   \
            (x)[lane_] += ((bits) >> lane_) & 1;       \
        }                                              \
    } while (0)

#endif

#define IFMA_INLINE static inline __attribute__((always_inline)) IFMA_TARGET

/* Lanes 1..7 of x, then lane 0 of y. */
#if defined(__clang__)
#define ifma_down(x, y) __builtin_shufflevector((x), (y), 1, 2, 3, 4, 5, 6, 7, 8)
#define ifma_up(x, y) __builtin_shufflevector((x), (y), 7, 8, 9, 10, 11, 12, 13, 14)
#else
#define ifma_down(x, y) __builtin_shuffle((x), (y), (ifma_vector){1, 2, 3, 4, 5, 6, 7, 8})
#define ifma_up(x, y) __builtin_shuffle((x), (y), (ifma_vector){7, 8, 9, 10, 11, 12, 13, 14})
#endif

#define ifma_load(p) (*(const ifma_unaligned *)(p))
#define ifma_store(p, x) (*(ifma_unaligned *)(p) = (x))

#define ifma_all(x) ((ifma_vector){(x), (x), (x), (x), (x), (x), (x), (x)})

INTERNAL bool ifma_usable(size_t limbs) {
    return (limbs == 16 || limbs == 32 || limbs == 64) && ifma_machine();
}

static size_t ifma_digits(const modulus *m) {
    return m->n == 16 ? 20 : m->n == 32 ? 40 : 79;
}

/* ---- The product ---- */

/* Digits below 2^52 + 2^10 become digits below 2^52; their number, of vectors * 8 digits, does not overflow. */
IFMA_INLINE void ifma_ripple(ifma_vector *x, size_t vectors) {
    /* A digit hands on a carry if it is too large, or if it is 2^52 - 1 and takes one: the same as a sum of the two masks, where
     * the carries of the addition run through the ones. */
    uint64_t over[2] = {0};
    uint64_t full[2] = {0};
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        over[k / 8] |= ifma_over(x[k]) << (8 * (k % 8));
        full[k / 8] |= ifma_full(x[k]) << (8 * (k % 8));
    }
    const ifma_wide o = ((ifma_wide)over[1] << 64 | over[0]) << 1;
    const ifma_wide f = (ifma_wide)full[1] << 64 | full[0];
    const ifma_wide carries = (o + f) ^ f;
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        const uint64_t takes = (uint64_t)(carries >> (8 * k)) & 0xff;
        ifma_increment(x[k], takes);
        x[k] &= ifma_all(IFMA_DIGIT);
    }
}

/* Digits below 2^63 become digits below 2^52. */
IFMA_INLINE void ifma_normalize(ifma_vector *x, size_t vectors) {
    ifma_vector carry[IFMA_VECTORS_MAX];
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        carry[k] = x[k] >> IFMA_DIGIT_BITS;
        x[k] &= ifma_all(IFMA_DIGIT);
    }
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        x[k] += k == 0 ? ifma_up(ifma_all(0), carry[0]) : ifma_up(carry[k - 1], carry[k]);
    }
    ifma_ripple(x, vectors);
}

/* The low and the high digit of the product of two, one of which was shifted up by 12 bits: so they end at a word's end. (Shifting the
 * product would take shifts over two words, which some processors are slow at.) */
IFMA_INLINE uint64_t ifma_lower(ifma_wide product) {
    return (uint64_t)product >> (64 - IFMA_DIGIT_BITS);
}

IFMA_INLINE uint64_t ifma_upper(ifma_wide product) {
    return (uint64_t)(product >> 64);
}

/* One digit of b after the other: add a times it, then the multiple q of m that makes the lowest digit zero, then drop that digit.
 *
 * Each q depends on the lowest digit alone. So that this chain need not wait for the vectors, the two lowest digits, `low` and `second`, are
 * computed a second time in ordinary registers, and the third is taken over from the vectors before the present round has touched it. A
 * digit grows by less than 4 * 2^52 in each of at most 80 rounds, hence stays below 2^61. */
IFMA_INLINE void ifma_product(
    uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m, size_t vectors, size_t digits) {
    ifma_vector x[IFMA_VECTORS_MAX];
    uint64_t low = 0; /* with what is carried into it */
    uint64_t second = 0;
    uint64_t a_up[3];
    uint64_t m_up[3];
    for (size_t j = 0; j < 3; j++) {
        a_up[j] = a[j] << (64 - IFMA_DIGIT_BITS);
        m_up[j] = m->form[j] << (64 - IFMA_DIGIT_BITS);
    }
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        x[k] = ifma_all(0);
    }
    for (size_t i = 0; i < digits; i++) {
        const uint64_t third = x[0][2];
        const ifma_vector bi = ifma_all(b[i]);
        const ifma_wide ab0 = (ifma_wide)a_up[0] * b[i];
        const ifma_wide ab1 = (ifma_wide)a_up[1] * b[i];
#pragma GCC unroll 10
        for (size_t k = 0; k < vectors; k++) {
            x[k] = ifma_low(x[k], ifma_load(a + 8 * k), bi);
        }
        low += ifma_lower(ab0);
        const uint64_t q = (low * m->inverse) & IFMA_DIGIT;
        const ifma_wide mq0 = (ifma_wide)m_up[0] * q;
        const ifma_wide mq1 = (ifma_wide)m_up[1] * q;
        second += ifma_upper(ab0) + ifma_lower(ab1);
        second += ifma_upper(mq0) + ifma_lower(mq1);
        low = ((low + ifma_lower(mq0)) >> IFMA_DIGIT_BITS) + second;
        second = third + ifma_upper(ab1) + ifma_lower(a_up[2] * b[i]) + ifma_upper(mq1) + ifma_lower(m_up[2] * q);
        const ifma_vector qi = ifma_all(q);
#pragma GCC unroll 10
        for (size_t k = 0; k < vectors; k++) {
            x[k] = ifma_low(x[k], ifma_load(m->form + 8 * k), qi);
        }
#pragma GCC unroll 10
        for (size_t k = 0; k < vectors; k++) {
            x[k] = ifma_down(x[k], k + 1 < vectors ? x[k + 1] : ifma_all(0));
            x[k] = ifma_high(x[k], ifma_load(a + 8 * k), bi);
            x[k] = ifma_high(x[k], ifma_load(m->form + 8 * k), qi);
        }
    }
    x[0][0] = low;
    ifma_normalize(x, vectors);
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        ifma_store(r + 8 * k, x[k]);
    }
}

static IFMA_TARGET __attribute__((noinline)) void ifma_mul_16(
    uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    ifma_product(r, a, b, m, 3, 20);
}

static IFMA_TARGET __attribute__((noinline)) void ifma_mul_32(
    uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    ifma_product(r, a, b, m, 5, 40);
}

static IFMA_TARGET __attribute__((noinline)) void ifma_mul_64(
    uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    ifma_product(r, a, b, m, 10, 79);
}

INTERNAL void ifma_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    if (m->n == 16) {
        ifma_mul_16(r, a, b, m);
    } else if (m->n == 32) {
        ifma_mul_32(r, a, b, m);
    } else {
        ifma_mul_64(r, a, b, m);
    }
}

/* ---- Digits and limbs ---- */

static void ifma_to_digits(uint64_t *digits, size_t words, const uint64_t *limbs, size_t n) {
    for (size_t i = 0; i < words; i++) {
        const size_t limb = IFMA_DIGIT_BITS * i / 64;
        const unsigned shift = IFMA_DIGIT_BITS * i % 64;
        const uint64_t low = limb < n ? limbs[limb] >> shift : 0;
        /* Shifted in two parts, as a shift by 64 is none. */
        const uint64_t high = limb + 1 < n ? limbs[limb + 1] << 1 << (63 - shift) : 0;
        digits[i] = (low | high) & IFMA_DIGIT;
    }
}

/* Of n + 1 limbs. */
static void ifma_to_limbs(uint64_t *limbs, size_t n, const uint64_t *digits, size_t words) {
    ifma_wide held = 0;
    unsigned bits = 0;
    size_t next = 0;
    for (size_t i = 0; i <= n; i++) {
        while (bits < 64 && next < words) {
            held |= (ifma_wide)digits[next] << bits;
            bits += IFMA_DIGIT_BITS;
            next++;
        }
        limbs[i] = (uint64_t)held;
        held >>= 64;
        bits = bits < 64 ? 0 : bits - 64;
    }
}

INTERNAL void ifma_enter(uint64_t *r, const uint64_t *a, const modulus *m) {
    uint64_t digits[MONTGOMERY_WORDS] = {0};
    ifma_to_digits(digits, m->words, a, m->n);
    ifma_mul(r, m->square, digits, m);
}

INTERNAL void ifma_leave(uint64_t *r, const uint64_t *a, const modulus *m) {
    uint64_t digits[MONTGOMERY_WORDS] = {1};
    uint64_t t_d[BIG_MODULUS_LIMBS + 1];
    uint64_t less_d[BIG_MODULUS_LIMBS + 1];
    const big t = {t_d, m->n + 1};
    const big less = {less_d, m->n + 1};
    /* Times 1: at most m, and m itself only for 0. */
    ifma_mul(digits, a, digits, m);
    ifma_to_limbs(t.d, m->n, digits, m->words);
    const uint64_t borrow = big_sub(less, t, modulus_value(m));
    big_select(big_view(r, m->n), big_low(t, m->n), big_low(less, m->n), borrow);
}

INTERNAL void ifma_one(uint64_t *r, const modulus *m) {
    uint64_t digits[MONTGOMERY_WORDS] = {1};
    ifma_mul(r, m->square, digits, m);
}

INTERNAL void ifma_shift(uint64_t *r, const modulus *m) {
    uint64_t digits[MONTGOMERY_WORDS] = {0};
    digits[64 * m->n / IFMA_DIGIT_BITS] = (uint64_t)1 << (64 * m->n % IFMA_DIGIT_BITS);
    ifma_mul(r, m->square, digits, m);
}

INTERNAL void ifma_double_if(uint64_t *a, uint64_t flag, const modulus *m) {
    /* < 4m, which a product takes. Each digit hands on its top bit at most, and takes one where the doubling left a zero. */
    uint64_t carry = 0;
    for (size_t i = 0; i < m->words; i++) {
        const uint64_t digit = (a[i] << flag) | carry;
        a[i] = digit & IFMA_DIGIT;
        carry = digit >> IFMA_DIGIT_BITS;
    }
}

static IFMA_TARGET void ifma_gather_any(
    uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const size_t vectors) {
    ifma_vector x[IFMA_VECTORS_MAX];
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        x[k] = ifma_all(0);
    }
    for (size_t i = 0; i < count; i++) {
        const uint64_t mask = ct_mask(ct_is_zero(index ^ i));
        const ifma_vector masks = ifma_all(mask);
#pragma GCC unroll 10
        for (size_t k = 0; k < vectors; k++) {
            x[k] |= masks & ifma_load(table + 8 * (i * vectors + k));
        }
    }
#pragma GCC unroll 10
    for (size_t k = 0; k < vectors; k++) {
        ifma_store(r + 8 * k, x[k]);
    }
}

INTERNAL void ifma_gather(uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const modulus *m) {
    if (m->n == 16) {
        ifma_gather_any(r, table, count, index, 3);
    } else if (m->n == 32) {
        ifma_gather_any(r, table, count, index, 5);
    } else {
        ifma_gather_any(r, table, count, index, 10);
    }
}

INTERNAL void ifma_init(modulus *m) {
    size_t bits = big_bits_var(modulus_value(m));
    DECLASSIFY(&bits, sizeof bits); /* the bit length of a modulus is public */
    const size_t r_bits = IFMA_DIGIT_BITS * ifma_digits(m);
    uint64_t power[BIG_MODULUS_LIMBS] = {0};
    m->words = (ifma_digits(m) + 7) / 8 * 8;
    ifma_to_digits(m->form, m->words, m->value, m->n);
    /* R mod m, by doubling from 2^(bits - 1) < m; then the exponent of 2 beside R grows to R's own by squaring and doubling, from its top
     * bit down. */
    power[(bits - 1) / 64] = (uint64_t)1 << ((bits - 1) % 64);
    for (size_t i = bits - 1; i < r_bits; i++) {
        limbs_double(power, power, m);
    }
    ifma_to_digits(m->square, m->words, power, m->n);
    ifma_double_if(m->square, 1, m);
    const size_t top = 63 - (size_t)__builtin_clzll(r_bits);
    for (size_t i = top; i-- > 0;) {
        ifma_mul(m->square, m->square, m->square, m);
        ifma_double_if(m->square, (r_bits >> i) & 1, m);
    }
    /* < 4m. What enters is < 2^(64 n), which is so much less than R that the product is < 2m even where m is far below 2^(64 n). */
}

/* ---- Eight numbers at a time, of 16 limbs each ----
 *
 * Here a lane holds a number of its own: vector j of an "octet" has digit j of all eight. Nothing has to move between lanes, and no chain
 * of one number holds up the others. */

#define IFMA_OCTET_DIGITS 20u

typedef ifma_vector ifma_octet[IFMA_OCTET_DIGITS];

/* Eight moduli; they may be all the same. */
typedef struct ifma_octet_modulus {
    ifma_octet form;
    ifma_octet square;
    ifma_vector inverse;
} ifma_octet_modulus;

static void ifma_octet_set(ifma_octet r, size_t lane, const uint64_t *element) {
    for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
        r[j][lane] = element[j];
    }
}

static void ifma_octet_get(uint64_t *element, const ifma_octet a, size_t lane) {
    memset(element, 0, 8 * MONTGOMERY_WORDS);
    for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
        element[j] = a[j][lane];
    }
}

static void ifma_octet_modulus_set(ifma_octet_modulus *r, size_t lane, const modulus *m) {
    ifma_octet_set(r->form, lane, m->form);
    ifma_octet_set(r->square, lane, m->square);
    r->inverse[lane] = m->inverse;
}

/* As ifma_product, and with its bounds. */
static IFMA_TARGET __attribute__((noinline)) void ifma_octet_mul(
    ifma_octet r, const ifma_octet a, const ifma_octet b, const ifma_octet_modulus *m) {
    ifma_octet x;
#pragma GCC unroll 20
    for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
        x[j] = ifma_all(0);
    }
    for (size_t i = 0; i < IFMA_OCTET_DIGITS; i++) {
        const ifma_vector bi = b[i];
        ifma_vector low = ifma_low(x[0], a[0], bi);
        const ifma_vector q = ifma_low(ifma_all(0), low, m->inverse);
        low = ifma_low(low, m->form[0], q);
#pragma GCC unroll 20
        for (size_t j = 1; j < IFMA_OCTET_DIGITS; j++) {
            ifma_vector sum = ifma_low(x[j], a[j], bi);
            sum = ifma_high(sum, a[j - 1], bi);
            sum = ifma_low(sum, m->form[j], q);
            x[j - 1] = ifma_high(sum, m->form[j - 1], q);
        }
        const ifma_vector top = ifma_high(ifma_all(0), a[IFMA_OCTET_DIGITS - 1], bi);
        x[IFMA_OCTET_DIGITS - 1] = ifma_high(top, m->form[IFMA_OCTET_DIGITS - 1], q);
        x[0] += low >> IFMA_DIGIT_BITS;
    }
    ifma_vector carry = ifma_all(0);
#pragma GCC unroll 20
    for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
        const ifma_vector sum = x[j] + carry;
        r[j] = sum & ifma_all(IFMA_DIGIT);
        carry = sum >> IFMA_DIGIT_BITS;
    }
}

/* As ifma_double_if, a flag for each lane. */
static IFMA_TARGET void ifma_octet_double_if(ifma_octet a, const ifma_vector *flags) {
    ifma_vector carry = ifma_all(0);
    for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
        const ifma_vector digit = (a[j] << *flags) | carry;
        a[j] = digit & ifma_all(IFMA_DIGIT);
        carry = digit >> IFMA_DIGIT_BITS;
    }
}

static IFMA_TARGET void ifma_octet_gather(ifma_octet r, ifma_octet *table, size_t count, uint64_t index) {
    memset(r, 0, sizeof(ifma_octet));
    for (size_t i = 0; i < count; i++) {
        const uint64_t mask = ct_mask(ct_is_zero(index ^ i));
        for (size_t j = 0; j < IFMA_OCTET_DIGITS; j++) {
            r[j] |= table[i][j] & ifma_all(mask);
        }
    }
}

INTERNAL bool ifma_has_octets(const modulus *m) {
    return m->n == 16 && ifma_usable(16);
}

INTERNAL void ifma_exp_octet(const big *r, const big *base, big exponent, unsigned window, const modulus *m) {
    ifma_octet_modulus octet;
    ifma_octet table[32];
    ifma_octet sum, term;
    uint64_t element[MONTGOMERY_WORDS];
    VERIFY_CHECK(window <= 5);
    for (size_t lane = 0; lane < 8; lane++) {
        ifma_octet_modulus_set(&octet, lane, m);
        ifma_one(element, m);
        ifma_octet_set(table[0], lane, element);
        ifma_to_digits(element, m->words, base[lane].d, m->n);
        ifma_octet_set(term, lane, element);
    }
    ifma_octet_mul(table[1], octet.square, term, &octet);
    for (size_t i = 2; i < (size_t)1 << window; i++) {
        ifma_octet_mul(table[i], table[i - 1], table[1], &octet);
    }
    memcpy(sum, table[0], sizeof sum);
    for (size_t i = (64 * exponent.n + window - 1) / window; i-- > 0;) {
        for (unsigned j = 0; j < window; j++) {
            ifma_octet_mul(sum, sum, sum, &octet);
        }
        ifma_octet_gather(term, table, (size_t)1 << window, big_bits_at(exponent, window * i, window));
        ifma_octet_mul(sum, sum, term, &octet);
    }
    for (size_t lane = 0; lane < 8; lane++) {
        ifma_octet_get(element, sum, lane);
        ifma_leave(r[lane].d, element, m);
    }
}

INTERNAL void ifma_fermat_octet(uint64_t *passes8, const modulus *m8) {
    ifma_octet_modulus octet;
    ifma_octet power;
    ifma_octet one = {{0}};
    uint64_t element[MONTGOMERY_WORDS];
    for (size_t lane = 0; lane < 8; lane++) {
        ifma_octet_modulus_set(&octet, lane, &m8[lane]);
        ifma_one(element, &m8[lane]);
        ifma_octet_set(power, lane, element);
        one[0][lane] = 1;
    }
    /* The exponent is m - 1: m without its last bit. */
    for (size_t i = 1024; i-- > 0;) {
        ifma_vector bits;
        for (size_t lane = 0; lane < 8; lane++) {
            bits[lane] = i == 0 ? 0 : (m8[lane].value[i / 64] >> (i % 64)) & 1;
        }
        ifma_octet_mul(power, power, power, &octet);
        ifma_octet_double_if(power, &bits);
    }
    ifma_octet_mul(power, power, one, &octet);
    for (size_t lane = 0; lane < 8; lane++) {
        uint64_t difference = power[0][lane] ^ 1;
        for (size_t j = 1; j < IFMA_OCTET_DIGITS; j++) {
            difference |= power[j][lane];
        }
        passes8[lane] = ct_is_zero(difference);
    }
}

#endif
