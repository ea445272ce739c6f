#ifndef TSS_BIGINT_IMPL_H
#define TSS_BIGINT_IMPL_H

#include "bigint.h"
#include "montgomery.h"
#include "secret.h"

#include <gmp.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(mp_limb_t) == 8 && GMP_NAIL_BITS == 0, "limbs are 64 full bits");

__extension__ typedef unsigned __int128 big_double; /* two limbs */

INTERNAL big big_view(const uint64_t *limbs, size_t n) {
    return (big){(uint64_t *)(uintptr_t)limbs, n};
}

INTERNAL big big_low(big a, size_t n) {
    VERIFY_CHECK(n <= a.n);
    return (big){a.d, n};
}

/* Limb i of a number of any width. */
static uint64_t big_limb(big a, size_t i) {
    return i < a.n ? a.d[i] : 0;
}

/* ---- Values ---- */

INTERNAL void big_zero(big r) {
    memset(r.d, 0, 8 * r.n);
}

INTERNAL void big_set_u64(big r, uint64_t value) {
    big_zero(r);
    r.d[0] = value;
}

INTERNAL void big_set(big r, big a) {
    const size_t n = r.n < a.n ? r.n : a.n;
    memmove(r.d, a.d, 8 * n);
    for (size_t i = n; i < r.n; i++) {
        r.d[i] = 0;
    }
}

INTERNAL void big_select(big r, big a, big b, uint64_t flag) {
    VERIFY_CHECK(r.n == a.n && r.n == b.n);
    const uint64_t mask = ct_mask(flag);
    for (size_t i = 0; i < r.n; i++) {
        r.d[i] = b.d[i] ^ (mask & (a.d[i] ^ b.d[i]));
    }
}

INTERNAL void big_wipe(big r) {
    secret_wipe(r.d, 8 * r.n);
}

INTERNAL bool big_from_bytes(big r, const uint8_t *bytes, size_t len) {
    uint8_t lost = 0;
    big_zero(r);
    for (size_t i = 0; i < len; i++) {
        const uint8_t byte = bytes[len - 1 - i];
        if (i < 8 * r.n) {
            r.d[i / 8] |= (uint64_t)byte << (8 * (i % 8));
        } else {
            lost |= byte;
        }
    }
    DECLASSIFY(&lost, sizeof lost); /* an overlong number is refused, which shows */
    if (lost != 0) {
        big_zero(r);
        return false;
    }
    return true;
}

INTERNAL bool big_to_bytes(uint8_t *bytes, size_t len, big a) {
    uint8_t lost = 0;
    memset(bytes, 0, len);
    for (size_t i = 0; i < 8 * a.n; i++) {
        const uint8_t byte = (uint8_t)(a.d[i / 8] >> (8 * (i % 8)));
        if (i < len) {
            bytes[len - 1 - i] = byte;
        } else {
            lost |= byte;
        }
    }
    DECLASSIFY(&lost, sizeof lost); /* as above */
    if (lost != 0) {
        memset(bytes, 0, len);
        return false;
    }
    return true;
}

INTERNAL size_t big_bits_var(big a) {
    /* The work itself is constant time: some callers' numbers are secret while their length is not. */
    size_t bits = 0;
    for (size_t i = 0; i < a.n; i++) {
        const uint64_t mask = ct_mask(ct_is_zero(a.d[i]));
        const size_t here = 64 * i + 64 - (size_t)__builtin_clzll(a.d[i] | 1);
        bits = (bits & mask) | (here & ~mask);
    }
    return bits;
}

INTERNAL size_t big_bytes_var(big a) {
    return (big_bits_var(a) + 7) / 8;
}

INTERNAL size_t big_write_var(uint8_t *bytes, size_t room, big a) {
    const size_t len = big_bytes_var(a);
    VERIFY_CHECK(len <= room);
    (void)room;
    for (size_t i = 0; i < len; i++) {
        bytes[len - 1 - i] = (uint8_t)(a.d[i / 8] >> (8 * (i % 8)));
    }
    return len;
}

/* ---- Comparison ---- */

INTERNAL uint64_t big_is_zero(big a) {
    uint64_t any = 0;
    for (size_t i = 0; i < a.n; i++) {
        any |= a.d[i];
    }
    return ct_is_zero(any);
}

INTERNAL uint64_t big_is_odd(big a) {
    return a.d[0] & 1;
}

INTERNAL uint64_t big_equal(big a, big b) {
    const size_t n = a.n > b.n ? a.n : b.n;
    uint64_t difference = 0;
    for (size_t i = 0; i < n; i++) {
        difference |= big_limb(a, i) ^ big_limb(b, i);
    }
    return ct_is_zero(difference);
}

INTERNAL uint64_t big_equal_u64(big a, uint64_t b) {
    return big_equal(a, big_view(&b, 1));
}

INTERNAL uint64_t big_less(big a, big b) {
    const size_t n = a.n > b.n ? a.n : b.n;
    uint64_t borrow = 0;
    for (size_t i = 0; i < n; i++) {
        const big_double difference = (big_double)big_limb(a, i) - big_limb(b, i) - borrow;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    return borrow;
}

INTERNAL uint64_t big_bit(big a, size_t i) {
    return (big_limb(a, i / 64) >> (i % 64)) & 1;
}

INTERNAL uint64_t big_bits_at(big a, size_t from, unsigned width) {
    const uint64_t low = big_limb(a, from / 64) >> (from % 64);
    /* Shifted in two parts, as a shift by 64 is none. */
    const uint64_t high = big_limb(a, from / 64 + 1) << 1 << (63 - from % 64);
    return (low | high) & (((uint64_t)1 << width) - 1);
}

/* ---- Integers ---- */

INTERNAL uint64_t big_add(big r, big a, big b) {
    VERIFY_CHECK(a.n <= r.n && b.n <= r.n);
    uint64_t carry = 0;
    for (size_t i = 0; i < r.n; i++) {
        const big_double sum = (big_double)big_limb(a, i) + big_limb(b, i) + carry;
        r.d[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    return carry;
}

INTERNAL uint64_t big_sub(big r, big a, big b) {
    VERIFY_CHECK(a.n <= r.n && b.n <= r.n);
    uint64_t borrow = 0;
    for (size_t i = 0; i < r.n; i++) {
        const big_double difference = (big_double)big_limb(a, i) - big_limb(b, i) - borrow;
        r.d[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    return borrow;
}

INTERNAL void big_mul(big r, big a, big b) {
    VERIFY_CHECK(a.n != 0 && b.n != 0 && a.n + b.n <= r.n);
    VERIFY_CHECK(mpn_sec_mul_itch((mp_size_t)a.n, (mp_size_t)b.n) == 0);
    if (a.n >= b.n) {
        mpn_sec_mul(r.d, a.d, (mp_size_t)a.n, b.d, (mp_size_t)b.n, NULL);
    } else {
        mpn_sec_mul(r.d, b.d, (mp_size_t)b.n, a.d, (mp_size_t)a.n, NULL);
    }
    for (size_t i = a.n + b.n; i < r.n; i++) {
        r.d[i] = 0;
    }
}

INTERNAL uint64_t big_mul_add(big r, big a, big b, big c) {
    big_mul(r, a, b);
    return big_add(r, r, c);
}

INTERNAL void big_shift_left(big r, big a, size_t bits) {
    const size_t limbs = bits / 64;
    const unsigned rest = (unsigned)(bits % 64);
    for (size_t i = r.n; i-- > 0;) {
        const uint64_t high = i >= limbs ? big_limb(a, i - limbs) : 0;
        const uint64_t low = i > limbs ? big_limb(a, i - limbs - 1) : 0;
        r.d[i] = rest == 0 ? high : (high << rest) | (low >> (64 - rest));
    }
}

INTERNAL void big_shift_right(big r, big a, size_t bits) {
    const size_t limbs = bits / 64;
    const unsigned rest = (unsigned)(bits % 64);
    for (size_t i = 0; i < r.n; i++) {
        const uint64_t low = big_limb(a, i + limbs);
        const uint64_t high = big_limb(a, i + limbs + 1);
        r.d[i] = rest == 0 ? low : (low >> rest) | (high << (64 - rest));
    }
}

/* Scratch of mpn_sec_div_qr and mpn_sec_div_r for up to BIG_MAX_LIMBS: 2 (nn + 2 - dn) + nn + dn + 3 at most. */
#define BIG_DIVIDE_SCRATCH (5 * BIG_MAX_LIMBS)

INTERNAL void big_divide(big quotient, big r, big a, big m) {
    uint64_t t[BIG_MAX_LIMBS];
    uint64_t scratch[BIG_DIVIDE_SCRATCH];
    VERIFY_CHECK(a.n <= BIG_MAX_LIMBS && quotient.n >= a.n && r.n >= m.n && m.n != 0 && m.d[m.n - 1] != 0);
    if (a.n < m.n) {
        memcpy(t, a.d, 8 * a.n);
        big_zero(quotient);
        big_set(r, big_view(t, a.n));
        return;
    }
    VERIFY_CHECK(mpn_sec_div_qr_itch((mp_size_t)a.n, (mp_size_t)m.n) <= (mp_size_t)BIG_DIVIDE_SCRATCH);
    uint64_t q[BIG_MAX_LIMBS];
    const size_t high = a.n - m.n;
    memcpy(t, a.d, 8 * a.n);
    q[high] = mpn_sec_div_qr(q, t, (mp_size_t)a.n, m.d, (mp_size_t)m.n, scratch);
    big_set(quotient, big_view(q, high + 1));
    big_set(r, big_view(t, m.n));
}

INTERNAL void big_mod(big r, big a, big m) {
    uint64_t t[BIG_MAX_LIMBS];
    uint64_t scratch[BIG_DIVIDE_SCRATCH];
    VERIFY_CHECK(a.n <= BIG_MAX_LIMBS && r.n >= m.n && m.n != 0 && m.d[m.n - 1] != 0);
    memcpy(t, a.d, 8 * a.n);
    if (a.n >= m.n) {
        VERIFY_CHECK(mpn_sec_div_r_itch((mp_size_t)a.n, (mp_size_t)m.n) <= (mp_size_t)BIG_DIVIDE_SCRATCH);
        mpn_sec_div_r(t, (mp_size_t)a.n, m.d, (mp_size_t)m.n, scratch);
    }
    big_set(r, big_view(t, a.n < m.n ? a.n : m.n));
}

INTERNAL void big_divide_exact(big r, big a, big m) {
    /* From the low end: each limb of the quotient is fixed by the lowest limb that is left (Jebelean's exact division). */
    uint64_t t[BIG_MAX_LIMBS];
    VERIFY_CHECK(a.n <= BIG_MAX_LIMBS && r.n <= a.n && m.n != 0 && (m.d[0] & 1) == 1);
    memcpy(t, a.d, 8 * a.n);
    const uint64_t inverse = (uint64_t)0 - montgomery_limb_inverse(m.d[0]);
    for (size_t i = 0; i < r.n; i++) {
        const uint64_t digit = t[i] * inverse;
        const size_t n = m.n < a.n - i ? m.n : a.n - i;
        uint64_t borrow = mpn_submul_1(&t[i], m.d, (mp_size_t)n, digit);
        for (size_t j = i + n; j < a.n; j++) {
            const big_double difference = (big_double)t[j] - borrow;
            t[j] = (uint64_t)difference;
            borrow = (uint64_t)(difference >> 64) & 1;
        }
        r.d[i] = digit;
    }
}

INTERNAL uint64_t big_inverse_odd(big r, big a, big m) {
    uint64_t t[BIG_MODULUS_LIMBS] = {0};
    uint64_t scratch[4 * BIG_MODULUS_LIMBS];
    VERIFY_CHECK(m.n <= BIG_MODULUS_LIMBS && a.n <= m.n && r.n == m.n && big_is_odd(m));
    VERIFY_CHECK(mpn_sec_invert_itch((mp_size_t)m.n) <= (mp_size_t)(4 * BIG_MODULUS_LIMBS));
    uint64_t result[BIG_MODULUS_LIMBS];
    memcpy(t, a.d, 8 * a.n);
    const int ok = mpn_sec_invert(result, t, m.d, (mp_size_t)m.n, 128 * (mp_bitcnt_t)m.n, scratch);
    memcpy(r.d, result, 8 * r.n);
    return (uint64_t)ok;
}

INTERNAL uint64_t big_inverse_of_odd(big r, big a, big m) {
    /* With k = -m^-1 mod a: a divides m k + 1, and (m k + 1)/a is the inverse, < m. */
    uint64_t k_d[BIG_MODULUS_LIMBS];
    uint64_t t_d[2 * BIG_MODULUS_LIMBS + 1];
    modulus by;
    VERIFY_CHECK(a.n <= BIG_MODULUS_LIMBS && m.n <= BIG_MODULUS_LIMBS && r.n == m.n);
    const big k = {k_d, a.n};
    const big t = {t_d, a.n + m.n + 1};
    const uint64_t one = 1;
    modulus_init(&by, a);
    mod_reduce(k, m, &by);
    const uint64_t ok = big_inverse_odd(k, k, a);
    mod_negate(k, k, &by);
    (void)big_mul_add(t, m, k, big_view(&one, 1));
    big_divide_exact(r, t, a);
    return ok;
}

/* ---- Public numbers ---- */

static mpz_srcptr big_mpz(mpz_t z, big a) {
    return mpz_roinit_n(z, a.d, (mp_size_t)a.n);
}

static void big_from_mpz(big r, mpz_srcptr z) {
    const size_t n = mpz_size(z);
    VERIFY_CHECK(n <= r.n);
    big_set(r, big_view(mpz_limbs_read(z), n));
}

INTERNAL bool big_inverse_var(big r, big a, big m) {
    mpz_t x, y, z;
    mpz_init(z);
    const bool ok = mpz_invert(z, big_mpz(x, a), big_mpz(y, m)) != 0;
    if (ok) {
        big_from_mpz(r, z);
    } else {
        big_zero(r);
    }
    mpz_clear(z);
    return ok;
}

INTERNAL bool big_coprime_var(big a, big b) {
    mpz_t x, y, z;
    mpz_init(z);
    mpz_gcd(z, big_mpz(x, a), big_mpz(y, b));
    const bool coprime = mpz_cmp_ui(z, 1) == 0;
    mpz_clear(z);
    return coprime;
}

INTERNAL int big_jacobi_var(big a, big n) {
    mpz_t x, y;
    VERIFY_CHECK(big_is_odd(n));
    return mpz_jacobi(big_mpz(x, a), big_mpz(y, n));
}

INTERNAL void big_isqrt_var(big r, big a) {
    mpz_t x, z;
    mpz_init(z);
    mpz_sqrt(z, big_mpz(x, a));
    big_from_mpz(r, z);
    mpz_clear(z);
}

INTERNAL bool big_probably_prime_var(big a) {
    mpz_t x;
    return mpz_probab_prime_p(big_mpz(x, a), 30) != 0;
}

INTERNAL bool big_has_small_factor_var(big a) {
    mpz_t x;
    big_mpz(x, a);
    for (unsigned long divisor = 2; divisor < 1000; divisor++) {
        if (mpz_divisible_ui_p(x, divisor)) {
            return true; /* by a composite only if by a prime before it */
        }
    }
    return false;
}

/* ---- Arithmetic modulo an odd number ---- */

INTERNAL void modulus_init(modulus *m, big value) {
    VERIFY_CHECK(value.n != 0 && value.n <= BIG_MODULUS_LIMBS && big_is_odd(value));
    m->n = value.n;
    memcpy(m->value, value.d, 8 * value.n);
    montgomery_init(m);
}

INTERNAL big modulus_value(const modulus *m) {
    return big_view(m->value, m->n);
}

/* r = a - m if a (with carry above it) >= m, else a. */
static void mod_subtract_once(big r, big a, uint64_t carry, const modulus *m) {
    uint64_t t_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, m->n};
    const uint64_t borrow = big_sub(t, a, modulus_value(m));
    big_select(r, a, t, borrow & (carry ^ 1));
}

INTERNAL void mod_add(big r, big a, big b, const modulus *m) {
    uint64_t t_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, m->n};
    VERIFY_CHECK(r.n == m->n && a.n == m->n && b.n == m->n);
    const uint64_t carry = big_add(t, a, b);
    mod_subtract_once(r, t, carry, m);
}

INTERNAL void mod_sub(big r, big a, big b, const modulus *m) {
    uint64_t t_d[BIG_MODULUS_LIMBS];
    uint64_t u_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, m->n};
    const big u = {u_d, m->n};
    VERIFY_CHECK(r.n == m->n && a.n == m->n && b.n == m->n);
    const uint64_t borrow = big_sub(t, a, b);
    (void)big_add(u, t, modulus_value(m));
    big_select(r, u, t, borrow);
}

INTERNAL void mod_negate(big r, big a, const modulus *m) {
    uint64_t zero_d[BIG_MODULUS_LIMBS] = {0};
    mod_sub(r, (big){zero_d, m->n}, a, m);
}

INTERNAL void mod_mul(big r, big a, big b, const modulus *m) {
    uint64_t x[MONTGOMERY_WORDS];
    uint64_t y[MONTGOMERY_WORDS];
    VERIFY_CHECK(r.n == m->n && a.n == m->n && b.n == m->n);
    montgomery_enter(x, a.d, m);
    montgomery_enter(y, b.d, m);
    montgomery_mul(x, x, y, m);
    montgomery_leave(r.d, x, m);
}

INTERNAL void mod_reduce(big r, big a, const modulus *m) {
    /* Horner over parts as wide as m; no division, whose reciprocals would give a secret m away. */
    uint64_t shift[MONTGOMERY_WORDS];
    uint64_t sum[MONTGOMERY_WORDS];
    uint64_t part[MONTGOMERY_WORDS];
    uint64_t left_d[BIG_MODULUS_LIMBS];
    uint64_t right_d[BIG_MODULUS_LIMBS];
    const big left = {left_d, m->n};
    const big right = {right_d, m->n};
    const size_t parts = (a.n + m->n - 1) / m->n;
    VERIFY_CHECK(r.n == m->n);
    montgomery_shift(shift, m);
    big_zero(left);
    for (size_t i = parts; i-- > 0;) {
        for (size_t j = 0; j < m->n; j++) {
            right.d[j] = big_limb(a, i * m->n + j);
        }
        montgomery_enter(part, right.d, m);
        montgomery_leave(right.d, part, m);
        if (i + 1 < parts) {
            montgomery_enter(sum, left.d, m);
            montgomery_mul(sum, sum, shift, m);
            montgomery_leave(left.d, sum, m);
        }
        mod_add(left, left, right, m);
    }
    big_set(r, left);
}

/* ---- Powers ---- */

/* A window of w bits costs 2^w (constant time) or 2^(w-1) (odd powers only) products for its table. */
static unsigned mod_window(size_t bits) {
    return bits <= 24 ? 2 : bits <= 80 ? 3 : bits <= 320 ? 4 : 5;
}

static unsigned mod_window_var(size_t bits) {
    return bits <= 24 ? 2 : bits <= 80 ? 3 : bits <= 240 ? 4 : bits <= 672 ? 5 : 6;
}

INTERNAL void mod_exp_product(big r, const big *base, const big *exponent, size_t count, const modulus *m) {
    /* Straus: one chain of squarings for all bases. */
    uint64_t table[MOD_PRODUCT_MAX][32 * MONTGOMERY_WORDS];
    uint64_t sum[MONTGOMERY_WORDS];
    uint64_t term[MONTGOMERY_WORDS];
    unsigned window[MOD_PRODUCT_MAX];
    size_t bits = 0;
    VERIFY_CHECK(count <= MOD_PRODUCT_MAX && r.n == m->n);
    for (size_t k = 0; k < count; k++) {
        uint64_t *t = table[k];
        VERIFY_CHECK(base[k].n == m->n);
        window[k] = mod_window(64 * exponent[k].n);
        bits = 64 * exponent[k].n > bits ? 64 * exponent[k].n : bits;
        montgomery_one(t, m);
        montgomery_enter(t + m->words, base[k].d, m);
        for (size_t i = 2; i < (size_t)1 << window[k]; i++) {
            uint64_t *power = t + i * m->words;
            if (i % 2 == 0) {
                montgomery_square(power, t + i / 2 * m->words, m);
            } else {
                montgomery_mul(power, power - m->words, t + m->words, m);
            }
        }
    }
    bool started = false;
    montgomery_one(sum, m);
    for (size_t i = bits; i-- > 0;) {
        if (started) {
            montgomery_square(sum, sum, m);
        }
        for (size_t k = 0; k < count; k++) {
            if (i < 64 * exponent[k].n && i % window[k] == 0) {
                const uint64_t digit = big_bits_at(exponent[k], i, window[k]);
                montgomery_gather(term, table[k], (size_t)1 << window[k], digit, m);
                montgomery_mul(sum, sum, term, m);
                started = true;
            }
        }
    }
    montgomery_leave(r.d, sum, m);
}

INTERNAL void mod_exp(big r, big base, big exponent, const modulus *m) {
    mod_exp_product(r, &base, &exponent, 1, m);
}

/* One base of a product with public exponents: odd powers, and the window that is open. */
typedef struct mod_chain {
    uint64_t *table; /* base^1, base^3, ... */
    unsigned window;
    uint64_t digit; /* odd, or 0 when no window is open */
    size_t low;     /* the bit at which it is multiplied in */
} mod_chain;

static void mod_chain_table(mod_chain *chain, big base, const modulus *m) {
    uint64_t square[MONTGOMERY_WORDS];
    montgomery_enter(chain->table, base.d, m);
    montgomery_square(square, chain->table, m);
    for (size_t i = 1; i < (size_t)1 << (chain->window - 1); i++) {
        montgomery_mul(chain->table + i * m->words, chain->table + (i - 1) * m->words, square, m);
    }
}

/* At bit i, from the top: open a window if the bit is set and none is open. It ends in a set bit. */
static void mod_chain_open(mod_chain *chain, big exponent, size_t i) {
    if (chain->digit != 0 || big_bit(exponent, i) == 0) {
        return;
    }
    const unsigned width = i + 1 < chain->window ? (unsigned)(i + 1) : chain->window;
    const uint64_t bits = big_bits_at(exponent, i + 1 - width, width);
    const unsigned zeros = (unsigned)__builtin_ctzll(bits);
    chain->digit = bits >> zeros;
    chain->low = i + 1 - width + zeros;
}

static void mod_exp_chains_var(big r, mod_chain *chain, const big *exponent, size_t count, const modulus *m) {
    uint64_t sum[MONTGOMERY_WORDS];
    size_t bits = 0;
    bool started = false;
    for (size_t k = 0; k < count; k++) {
        const size_t own = big_bits_var(exponent[k]);
        bits = own > bits ? own : bits;
    }
    montgomery_one(sum, m);
    for (size_t i = bits; i-- > 0;) {
        if (started) {
            montgomery_square(sum, sum, m);
        }
        for (size_t k = 0; k < count; k++) {
            mod_chain_open(&chain[k], exponent[k], i);
            if (chain[k].digit != 0 && chain[k].low == i) {
                const uint64_t *power = chain[k].table + chain[k].digit / 2 * m->words;
                if (started) {
                    montgomery_mul(sum, sum, power, m);
                } else {
                    memcpy(sum, power, 8 * m->words);
                }
                started = true;
                chain[k].digit = 0;
            }
        }
    }
    montgomery_leave(r.d, sum, m);
}

INTERNAL bool mod_exp_product_var(big r, const big *base, const big *exponent, size_t count, const modulus *m) {
    uint64_t near_table[64 * MONTGOMERY_WORDS];
    mod_chain near_chain[MOD_PRODUCT_MAX];
    uint64_t *table = near_table;
    mod_chain *chain = near_chain;
    const bool far = count > MOD_PRODUCT_MAX;
    const unsigned widest = far || count > 2 ? 5 : 6;
    VERIFY_CHECK(r.n == m->n);
    if (far) {
        table = calloc(count, 16 * 8 * m->words);
        chain = calloc(count, sizeof *chain);
    }
    const bool ok = table != NULL && chain != NULL;
    if (ok) {
        for (size_t k = 0; k < count; k++) {
            const unsigned window = mod_window_var(big_bits_var(exponent[k]));
            VERIFY_CHECK(base[k].n == m->n);
            chain[k] = (mod_chain){
                .table = table + k * ((size_t)1 << (widest - 1)) * m->words,
                .window = window < widest ? window : widest,
            };
            mod_chain_table(&chain[k], base[k], m);
        }
        mod_exp_chains_var(r, chain, exponent, count, m);
    }
    if (far) {
        free(table);
        free(chain);
    }
    return ok;
}

INTERNAL void mod_exp_var(big r, big base, big exponent, const modulus *m) {
    const bool ok = mod_exp_product_var(r, &base, &exponent, 1, m);
    VERIFY_CHECK(ok); /* a single base needs no memory */
    (void)ok;
}

/* As many of the first as are done eight at a time. The last octet is filled up with one of its own if it pays: it takes as long as about
 * four single powers. */
static size_t mod_exp_octets(const big *r, const big *base, size_t count, big exponent, const modulus *m) {
    uint64_t rest_d[8][16];
    size_t done = 0;
    while (ifma_has_octets(m) && count - done >= 5) {
        const size_t few = count - done < 8 ? count - done : 8;
        big bases[8];
        big results[8];
        for (size_t i = 0; i < 8; i++) {
            bases[i] = base[done + (i < few ? i : 0)];
            results[i] = (big){rest_d[i], 16};
        }
        ifma_exp_octet(results, bases, exponent, mod_window(64 * exponent.n), m);
        for (size_t i = 0; i < few; i++) {
            big_set(r[done + i], results[i]);
        }
        done += few;
    }
    return done;
}

INTERNAL void mod_exp_many(const big *r, const big *base, size_t count, big exponent, const modulus *m) {
    for (size_t i = mod_exp_octets(r, base, count, exponent, m); i < count; i++) {
        mod_exp(r[i], base[i], exponent, m);
    }
}

INTERNAL void mod_exp_many_var(const big *r, const big *base, size_t count, big exponent, const modulus *m) {
    for (size_t i = mod_exp_octets(r, base, count, exponent, m); i < count; i++) {
        mod_exp_var(r[i], base[i], exponent, m);
    }
}

/* ---- Fixed bases (Lim and Lee, CRYPTO '94) ----
 *
 * The exponent's bits are written in `teeth` rows of blocks * spacing columns. Entry e of block j is the product over the set bits i of e of
 * base^(2^(i blocks spacing + j spacing)); so one entry serves one column of all rows at once, and all blocks share spacing - 1 squarings. */

struct fixed_base {
    const modulus *m;
    unsigned teeth;
    size_t blocks;
    size_t spacing;
    fixed_place place;
    uint64_t *table; /* blocks times 2^teeth elements */
};

typedef struct fixed_shape {
    unsigned teeth;
    size_t blocks;
    size_t spacing;
} fixed_shape;

#define FIXED_TEETH_MAX 8u
#define FIXED_BLOCKS_MAX 16u

static size_t fixed_table_len(const modulus *m, unsigned teeth, size_t blocks) {
    return 8 * m->words * (blocks << teeth);
}

/* The cheapest shape in multiplications, table included; max_len counts, but the smallest shape is always allowed. */
static fixed_shape fixed_choose(const modulus *m, size_t bits, size_t uses, bool secret_exponents, size_t max_len) {
    fixed_shape best = {0};
    size_t best_cost = SIZE_MAX;
    for (unsigned teeth = 2; teeth <= FIXED_TEETH_MAX; teeth++) {
        for (size_t blocks = 1; blocks <= FIXED_BLOCKS_MAX; blocks++) {
            const size_t columns = (bits + teeth - 1) / teeth;
            const size_t spacing = (columns + blocks - 1) / blocks;
            /* In 1/64 of a product. Reading an entry of n words costs n of the 2 n^2 steps of a product. */
            const size_t lookup = secret_exponents ? ((size_t)32 << teeth) / m->words : 0;
            const size_t once = 64 * (bits + (blocks << teeth));
            const size_t each = 64 * spacing + blocks * spacing * (64 + lookup);
            const size_t cost = once + uses * each;
            if (cost < best_cost && (best.teeth == 0 || fixed_table_len(m, teeth, blocks) <= max_len)) {
                best_cost = cost;
                best = (fixed_shape){teeth, blocks, spacing};
            }
        }
    }
    return best;
}

static void fixed_fill(fixed_base *f, big base) {
    const modulus *m = f->m;
    uint64_t power[MONTGOMERY_WORDS]; /* base^(2^i) */
    montgomery_enter(power, base.d, m);
    /* First the entries of one bit, in the order in which the squarings meet them ... */
    for (unsigned tooth = 0; tooth < f->teeth; tooth++) {
        for (size_t block = 0; block < f->blocks; block++) {
            memcpy(f->table + ((block << f->teeth) + ((size_t)1 << tooth)) * m->words, power, 8 * m->words);
            for (size_t i = 0; i < f->spacing; i++) {
                montgomery_square(power, power, m);
            }
        }
    }
    /* ... then every other entry from its highest bit and the rest. */
    for (size_t block = 0; block < f->blocks; block++) {
        uint64_t *entries = f->table + (block << f->teeth) * m->words;
        montgomery_one(entries, m);
        for (size_t e = 3; e < (size_t)1 << f->teeth; e++) {
            const size_t high = (size_t)1 << (63 - __builtin_clzll((unsigned long long)e));
            if (e != high) {
                montgomery_mul(entries + e * m->words, entries + high * m->words, entries + (e - high) * m->words, m);
            }
        }
    }
}

INTERNAL fixed_base *fixed_base_new(
    const modulus *m, big base, size_t exponent_bits, size_t uses, bool secret_exponents, size_t max_len, fixed_place place) {
    const fixed_shape shape = fixed_choose(m, exponent_bits, uses, secret_exponents, max_len);
    const size_t header = (sizeof(fixed_base) + 63) / 64 * 64;
    const size_t len = header + fixed_table_len(m, shape.teeth, shape.blocks);
    fixed_base *f = place == FIXED_ARENA ? secret_alloc(len) : aligned_alloc(64, (len + 63) / 64 * 64);
    VERIFY_CHECK(base.n == m->n && exponent_bits != 0);
    if (f != NULL) {
        *f = (fixed_base){.m = m, .teeth = shape.teeth, .blocks = shape.blocks, .spacing = shape.spacing, .place = place};
        f->table = (uint64_t *)(void *)((uint8_t *)f + header);
        fixed_fill(f, base);
    }
    return f;
}

INTERNAL void fixed_base_free(fixed_base *table) {
    if (table != NULL) {
        if (table->place == FIXED_ARENA) {
            secret_free(table);
        } else {
            free(table);
        }
    }
}

/* The entry of a block for one column. */
static uint64_t fixed_index(const fixed_base *f, big exponent, size_t column) {
    uint64_t index = 0;
    for (unsigned tooth = 0; tooth < f->teeth; tooth++) {
        index |= big_bit(exponent, tooth * f->blocks * f->spacing + column) << tooth;
    }
    return index;
}

static void fixed_exp_product_any(
    big r, const fixed_base *const *table, const big *exponent, size_t count, bool secret_exponents) {
    const modulus *m = table[0]->m;
    uint64_t sum[MONTGOMERY_WORDS];
    uint64_t term[MONTGOMERY_WORDS];
    size_t spacing = 0;
    bool started = false;
    for (size_t k = 0; k < count; k++) {
        VERIFY_CHECK(table[k]->m == m);
        spacing = table[k]->spacing > spacing ? table[k]->spacing : spacing;
    }
    montgomery_one(sum, m);
    for (size_t i = spacing; i-- > 0;) {
        if (started) {
            montgomery_square(sum, sum, m);
        }
        for (size_t k = 0; k < count; k++) {
            const fixed_base *f = table[k];
            for (size_t block = 0; i < f->spacing && block < f->blocks; block++) {
                const uint64_t index = fixed_index(f, exponent[k], block * f->spacing + i);
                const uint64_t *entries = f->table + (block << f->teeth) * m->words;
                if (secret_exponents) {
                    montgomery_gather(term, entries, (size_t)1 << f->teeth, index, m);
                    montgomery_mul(sum, sum, term, m);
                    started = true;
                } else if (index != 0) {
                    montgomery_mul(sum, sum, entries + index * m->words, m);
                    started = true;
                }
            }
        }
    }
    montgomery_leave(r.d, sum, m);
}

INTERNAL void fixed_exp_product(big r, const fixed_base *const *table, const big *exponent, size_t count) {
    fixed_exp_product_any(r, table, exponent, count, true);
}

INTERNAL void fixed_exp_product_var(big r, const fixed_base *const *table, const big *exponent, size_t count) {
    fixed_exp_product_any(r, table, exponent, count, false);
}

/* ---- Known factors ---- */

INTERNAL uint64_t crt_init(crt *c, big p, big q) {
    const size_t k = p.n;
    BIG(wide, 64 * BIG_MODULUS_LIMBS);
    BIG(part, 64 * BIG_MODULUS_LIMBS);
    VERIFY_CHECK(q.n == k && k <= BIG_MODULUS_LIMBS / 4 && (p.d[0] & 3) == 3 && (q.d[0] & 3) == 3);
    memset(c, 0, sizeof *c);
    modulus_init(&c->p, p);
    modulus_init(&c->q, q);
    big_shift_right(big_low(part, k), p, 1);
    modulus_init(&c->p_half, big_low(part, k));
    big_shift_right(big_low(part, k), q, 1);
    modulus_init(&c->q_half, big_low(part, k));
    big_mul(big_low(wide, 2 * k), p, q);
    modulus_init(&c->n, big_low(wide, 2 * k));
    big_mul(big_low(wide, 2 * k), p, p);
    modulus_init(&c->pp, big_low(wide, 2 * k));
    big_mul(big_low(wide, 2 * k), q, q);
    modulus_init(&c->qq, big_low(wide, 2 * k));

    mod_reduce(big_low(part, k), p, &c->q);
    uint64_t ok = big_inverse_odd(big_view(c->p_inverse, k), big_low(part, k), q);
    mod_reduce(big_low(part, 2 * k), modulus_value(&c->pp), &c->qq);
    ok &= big_inverse_odd(big_view(c->pp_inverse, 2 * k), big_low(part, 2 * k), modulus_value(&c->qq));
    return ok;
}

/* Garner: r = rp + p ((rq - rp) p^-1 mod q) */
static void crt_garner(big r, big rp, big rq, const modulus *p, const modulus *q, const uint64_t *inverse) {
    uint64_t t_d[BIG_MODULUS_LIMBS];
    uint64_t u_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, q->n};
    const big u = {u_d, p->n + q->n};
    VERIFY_CHECK(r.n == p->n + q->n && rp.n == p->n && rq.n == q->n);
    mod_reduce(t, rp, q);
    mod_sub(t, rq, t, q);
    mod_mul(t, t, big_view(inverse, q->n), q);
    (void)big_mul_add(u, modulus_value(p), t, rp);
    big_set(r, u);
}

INTERNAL void crt_combine(big r, big rp, big rq, const crt *c) {
    crt_garner(r, rp, rq, &c->p, &c->q, c->p_inverse);
}

INTERNAL void crt_combine_square(big r, big rp, big rq, const crt *c) {
    crt_garner(r, rp, rq, &c->pp, &c->qq, c->pp_inverse);
}

INTERNAL void crt_reduce_exponent(big r, big e, const modulus *half) {
    /* p - 1 = 2 half with half odd: the residue modulo half, plus half if its parity is not that of e. */
    uint64_t t_d[BIG_MODULUS_LIMBS];
    uint64_t u_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, half->n};
    const big u = {u_d, half->n};
    VERIFY_CHECK(r.n == half->n);
    const uint64_t odd = big_is_odd(e);
    mod_reduce(t, e, half);
    (void)big_add(u, t, modulus_value(half));
    big_select(r, u, t, odd ^ big_is_odd(t));
}

static void crt_exp_product_modulo(
    big r, const big *base, const big *exponent, size_t count, const modulus *m, const modulus *half, bool secret) {
    uint64_t reduced[MOD_PRODUCT_MAX][BIG_MODULUS_LIMBS];
    uint64_t shorter[MOD_PRODUCT_MAX][BIG_MODULUS_LIMBS];
    big b[MOD_PRODUCT_MAX];
    big e[MOD_PRODUCT_MAX];
    VERIFY_CHECK(count <= MOD_PRODUCT_MAX);
    for (size_t i = 0; i < count; i++) {
        b[i] = (big){reduced[i], m->n};
        e[i] = exponent[i];
        mod_reduce(b[i], base[i], m);
        if (half != NULL && exponent[i].n > half->n) {
            e[i] = (big){shorter[i], half->n};
            crt_reduce_exponent(e[i], exponent[i], half);
            secret = true; /* reduced, even a public exponent tells of the factor */
        }
    }
    if (secret) {
        mod_exp_product(r, b, e, count, m);
    } else {
        const bool ok = mod_exp_product_var(r, b, e, count, m);
        VERIFY_CHECK(ok); /* so few bases need no memory */
        (void)ok;
    }
}

static void crt_exp_product_any(big r, const big *base, const big *exponent, size_t count, const crt *c, bool secret) {
    uint64_t rp_d[BIG_MODULUS_LIMBS];
    uint64_t rq_d[BIG_MODULUS_LIMBS];
    const big rp = {rp_d, c->p.n};
    const big rq = {rq_d, c->q.n};
    crt_exp_product_modulo(rp, base, exponent, count, &c->p, &c->p_half, secret);
    crt_exp_product_modulo(rq, base, exponent, count, &c->q, &c->q_half, secret);
    crt_combine(r, rp, rq, c);
}

INTERNAL void crt_exp_product(big r, const big *base, const big *exponent, size_t count, const crt *c) {
    crt_exp_product_any(r, base, exponent, count, c, true);
}

INTERNAL void crt_exp_product_var(big r, const big *base, const big *exponent, size_t count, const crt *c) {
    crt_exp_product_any(r, base, exponent, count, c, false);
}

INTERNAL void crt_exp(big r, big base, big exponent, const crt *c) {
    crt_exp_product(r, &base, &exponent, 1, c);
}

INTERNAL void crt_exp_many(const big *r, const big *base, size_t count, big exponent, const crt *c) {
    enum { AT_ONCE = 8 };
    uint64_t rp_d[AT_ONCE][BIG_MODULUS_LIMBS / 4];
    uint64_t rq_d[AT_ONCE][BIG_MODULUS_LIMBS / 4];
    uint64_t ep_d[BIG_MODULUS_LIMBS / 4];
    uint64_t eq_d[BIG_MODULUS_LIMBS / 4];
    big rp[AT_ONCE];
    big rq[AT_ONCE];
    const size_t k = c->p.n;
    crt_reduce_exponent((big){ep_d, k}, exponent, &c->p_half);
    crt_reduce_exponent((big){eq_d, k}, exponent, &c->q_half);
    for (size_t done = 0; done < count; done += AT_ONCE) {
        const size_t few = count - done < AT_ONCE ? count - done : AT_ONCE;
        for (size_t i = 0; i < few; i++) {
            rp[i] = (big){rp_d[i], k};
            rq[i] = (big){rq_d[i], k};
            mod_reduce(rp[i], base[done + i], &c->p);
            mod_reduce(rq[i], base[done + i], &c->q);
        }
        mod_exp_many(rp, rp, few, (big){ep_d, k}, &c->p);
        mod_exp_many(rq, rq, few, (big){eq_d, k}, &c->q);
        for (size_t i = 0; i < few; i++) {
            crt_combine(r[done + i], rp[i], rq[i], c);
        }
    }
}

static void crt_exp_product_square_any(
    big r, const big *base, const big *exponent, size_t count, const crt *c, bool secret) {
    uint64_t rp_d[BIG_MODULUS_LIMBS];
    uint64_t rq_d[BIG_MODULUS_LIMBS];
    const big rp = {rp_d, c->pp.n};
    const big rq = {rq_d, c->qq.n};
    crt_exp_product_modulo(rp, base, exponent, count, &c->pp, NULL, secret);
    crt_exp_product_modulo(rq, base, exponent, count, &c->qq, NULL, secret);
    crt_combine_square(r, rp, rq, c);
}

INTERNAL void crt_exp_product_square(big r, const big *base, const big *exponent, size_t count, const crt *c) {
    crt_exp_product_square_any(r, base, exponent, count, c, true);
}

INTERNAL void crt_exp_product_square_var(big r, const big *base, const big *exponent, size_t count, const crt *c) {
    crt_exp_product_square_any(r, base, exponent, count, c, false);
}

/* base^(p q) mod p^2. Since (x + k p)^p = x^p mod p^2, base^q is needed modulo p only. */
static void crt_nth_power_modulo(
    big r, big base, const modulus *p, const modulus *p_half, const modulus *pp, const modulus *q) {
    uint64_t t_d[BIG_MODULUS_LIMBS] = {0};
    uint64_t e_d[BIG_MODULUS_LIMBS];
    const big t = {t_d, p->n};
    const big e = {e_d, p->n};
    mod_reduce(t, base, p);
    crt_reduce_exponent(e, modulus_value(q), p_half);
    mod_exp(t, t, e, p);
    mod_exp(r, (big){t_d, pp->n}, modulus_value(p), pp);
}

INTERNAL void crt_nth_power(big r, big base, const crt *c) {
    uint64_t rp_d[BIG_MODULUS_LIMBS];
    uint64_t rq_d[BIG_MODULUS_LIMBS];
    const big rp = {rp_d, c->pp.n};
    const big rq = {rq_d, c->qq.n};
    crt_nth_power_modulo(rp, base, &c->p, &c->p_half, &c->pp, &c->q);
    crt_nth_power_modulo(rq, base, &c->q, &c->q_half, &c->qq, &c->p);
    crt_combine_square(r, rp, rq, c);
}

#endif
