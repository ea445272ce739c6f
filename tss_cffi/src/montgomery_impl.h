#ifndef TSS_MONTGOMERY_IMPL_H
#define TSS_MONTGOMERY_IMPL_H

#include "montgomery.h"
#include "secret.h"

#include <gmp.h>
#include <string.h>

/* -a^-1 mod 2^64 for odd a: Newton's iteration doubles the number of right bits; a itself is right to 3 bits. */
static uint64_t montgomery_limb_inverse(uint64_t a) {
    uint64_t x = a;
    for (int i = 0; i < 5; i++) {
        x *= 2 - a * x;
    }
    return (uint64_t)0 - x;
}

/* ---- The kernel of every machine: limbs ---- */

/* Elements are m->n limbs, < m; R = 2^(64 n). Products by GMP's schoolbook functions, whose time depends on widths alone. */

/* t: 2n limbs, < m R. r = t / R mod m. */
static void limbs_reduce(uint64_t *r, uint64_t *t, const modulus *m) {
    const mp_size_t n = (mp_size_t)m->n;
    for (size_t i = 0; i < m->n; i++) {
        /* t[i] becomes zero; its place takes the carry out of limb i + n, which is added when all rows are done. */
        t[i] = mpn_addmul_1(&t[i], m->value, n, t[i] * m->inverse);
    }
    const uint64_t carry = mpn_add_n(r, t + n, t, n);
    const uint64_t borrow = mpn_sub_n(t, r, m->value, n);
    /* The sum is < 2m: take the difference unless it is negative. */
    const uint64_t keep = ct_mask(borrow & (carry ^ 1));
    for (size_t i = 0; i < m->n; i++) {
        r[i] = t[i] ^ (keep & (r[i] ^ t[i]));
    }
}

static void limbs_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    uint64_t t[2 * BIG_MODULUS_LIMBS];
    const mp_size_t n = (mp_size_t)m->n;
    VERIFY_CHECK(mpn_sec_mul_itch(n, n) <= 0);
    mpn_sec_mul(t, a, n, b, n, NULL);
    limbs_reduce(r, t, m);
}

static void limbs_square(uint64_t *r, const uint64_t *a, const modulus *m) {
    uint64_t t[2 * BIG_MODULUS_LIMBS];
    uint64_t scratch[2 * BIG_MODULUS_LIMBS];
    const mp_size_t n = (mp_size_t)m->n;
    VERIFY_CHECK(mpn_sec_sqr_itch(n) <= (mp_size_t)(sizeof scratch / sizeof scratch[0]));
    mpn_sec_sqr(t, a, n, scratch);
    limbs_reduce(r, t, m);
}

/* r = 2 a mod m, a < m. */
static void limbs_double(uint64_t *r, const uint64_t *a, const modulus *m) {
    uint64_t t[BIG_MODULUS_LIMBS];
    const mp_size_t n = (mp_size_t)m->n;
    const uint64_t carry = mpn_lshift(r, a, n, 1);
    const uint64_t borrow = mpn_sub_n(t, r, m->value, n);
    const uint64_t keep = ct_mask(borrow & (carry ^ 1));
    for (size_t i = 0; i < m->n; i++) {
        r[i] = t[i] ^ (keep & (r[i] ^ t[i]));
    }
}

static void limbs_init(modulus *m) {
    size_t bits = big_bits_var(modulus_value(m));
    DECLASSIFY(&bits, sizeof bits); /* the bit length of a modulus is public */
    m->words = m->n;
    memcpy(m->form, m->value, 8 * m->n);
    /* R^2 without division: start at 2^(bits - 1) < m and double up to 2^c R where 64 n = c 2^k, then square k times, each of which
     * doubles the exponent of 2 beside R. */
    size_t c = 64 * m->n;
    unsigned k = 0;
    while (c % 2 == 0) {
        c /= 2;
        k++;
    }
    memset(m->square, 0, sizeof m->square);
    m->square[(bits - 1) / 64] = (uint64_t)1 << ((bits - 1) % 64);
    for (size_t i = bits - 1; i < 64 * m->n + c; i++) {
        limbs_double(m->square, m->square, m);
    }
    for (; k > 0; k--) {
        limbs_square(m->square, m->square, m);
    }
}

static void limbs_double_if(uint64_t *a, uint64_t flag, const modulus *m) {
    uint64_t twice[BIG_MODULUS_LIMBS];
    limbs_double(twice, a, m);
    big_select(big_view(a, m->n), big_view(twice, m->n), big_view(a, m->n), flag);
}

static void limbs_enter(uint64_t *r, const uint64_t *a, const modulus *m) {
    limbs_mul(r, a, m->square, m);
}

static void limbs_leave(uint64_t *r, const uint64_t *a, const modulus *m) {
    uint64_t t[2 * BIG_MODULUS_LIMBS] = {0};
    memcpy(t, a, 8 * m->n);
    limbs_reduce(r, t, m);
}

static void limbs_one(uint64_t *r, const modulus *m) {
    limbs_leave(r, m->square, m);
}

static void limbs_shift(uint64_t *r, const modulus *m) {
    memcpy(r, m->square, 8 * m->n);
}

static void limbs_gather(uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const modulus *m) {
    memset(r, 0, 8 * m->words);
    for (size_t i = 0; i < count; i++) {
        const uint64_t mask = ct_mask(ct_is_zero(index ^ i));
        for (size_t j = 0; j < m->words; j++) {
            r[j] |= mask & table[i * m->words + j];
        }
    }
}

/* ---- The better of the two kernels ---- */

#include "montgomery_ifma_impl.h"

/* Only there are there more words than limbs. */
static bool montgomery_by_ifma(const modulus *m) {
    return m->words != m->n;
}

INTERNAL void montgomery_init(modulus *m) {
    m->inverse = montgomery_limb_inverse(m->value[0]);
    if (ifma_usable(m->n)) {
        ifma_init(m);
    } else {
        limbs_init(m);
    }
}

INTERNAL void montgomery_enter(uint64_t *r, const uint64_t *a, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_enter(r, a, m);
    } else {
        limbs_enter(r, a, m);
    }
}

INTERNAL void montgomery_leave(uint64_t *r, const uint64_t *a, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_leave(r, a, m);
    } else {
        limbs_leave(r, a, m);
    }
}

INTERNAL void montgomery_one(uint64_t *r, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_one(r, m);
    } else {
        limbs_one(r, m);
    }
}

INTERNAL void montgomery_shift(uint64_t *r, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_shift(r, m);
    } else {
        limbs_shift(r, m);
    }
}

INTERNAL void montgomery_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_mul(r, a, b, m);
    } else {
        limbs_mul(r, a, b, m);
    }
}

INTERNAL void montgomery_square(uint64_t *r, const uint64_t *a, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_mul(r, a, a, m);
    } else {
        limbs_square(r, a, m);
    }
}

INTERNAL void montgomery_double_if(uint64_t *a, uint64_t flag, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_double_if(a, flag, m);
    } else {
        limbs_double_if(a, flag, m);
    }
}

INTERNAL void montgomery_gather(uint64_t *r, const uint64_t *table, size_t count, uint64_t index, const modulus *m) {
    if (montgomery_by_ifma(m)) {
        ifma_gather(r, table, count, index, m);
    } else {
        limbs_gather(r, table, count, index, m);
    }
}

#endif
