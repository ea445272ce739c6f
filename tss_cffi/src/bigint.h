#ifndef TSS_BIGINT_H
#define TSS_BIGINT_H

#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Natural numbers of fixed width, and arithmetic modulo odd numbers.
 *
 * A `big` is a view of n 64-bit limbs, least significant first; it owns nothing and is passed by value. The WIDTH n is public, the
 * value may be secret. No function here allocates (but fixed_base_new and, for public numbers, those marked mpz).
 *
 * CONSTANT TIME: every function's time and memory accesses depend on widths alone, unless its name ends in `_var`. Of an `_var`
 * function the comment says which arguments it gives away: of the exponentiations, the exponents only.
 *
 * OVERLAP: a result may be the same view as an operand, unless the comment says otherwise; partial overlap is never allowed.
 *
 * Results are written in their full width. Outputs come first. */

#define BIG_LIMB_BITS 64u
#define BIG_LIMBS(bits) (((size_t)(bits) + 63u) / 64u)
#define BIG_MODULUS_LIMBS 64u /* widest modulus: 4096 bits */
#define BIG_MAX_LIMBS 160u    /* widest operand of division, reduction and the mpz functions: 10240 bits */

typedef struct big {
    uint64_t *d;
    size_t n;
} big;

/** Declare a number of that many bits (rounded up to limbs) on the stack, without a value. */
#define BIG(name, bits)                   \
    uint64_t name##_d[BIG_LIMBS(bits)];   \
    const big name = {name##_d, BIG_LIMBS(bits)}

/** A view of an array of limbs (an array, not a pointer). Const arrays may be viewed as operands, never as results. */
#define BIG_OF(array) ((big){(uint64_t *)(uintptr_t)(array), sizeof(array) / sizeof((array)[0])})

/** A view of n limbs from limbs on: with const, as above. */
INTERNAL big big_view(const uint64_t *limbs, size_t n);

/** The low n limbs of a, n <= a.n. */
INTERNAL big big_low(big a, size_t n);

/* ---- Values ---- */

INTERNAL void big_zero(big r);
INTERNAL void big_set_u64(big r, uint64_t value);

/** r = a, widened with zeros or narrowed: limbs that do not fit MUST be zero. */
INTERNAL void big_set(big r, big a);

/** r = flag ? a : b; all of one width. */
INTERNAL void big_select(big r, big a, big b, uint64_t flag);

/** Wipe the value. */
INTERNAL void big_wipe(big r);

/** Big-endian bytes in, leading zeros tolerated, len 0 is the number 0. False, r = 0: does not fit into r. Constant time in the
 *  bytes, but for whether they fit. */
INTERNAL MUST_USE bool big_from_bytes(big r, const uint8_t *bytes, size_t len);

/** Big-endian, padded with zeros to exactly len bytes. False, zeros: does not fit. */
INTERNAL MUST_USE bool big_to_bytes(uint8_t *bytes, size_t len, big a);

/** Bits, or bytes, of the minimal form; 0 for 0. Gives away that length. */
INTERNAL size_t big_bits_var(big a);
INTERNAL size_t big_bytes_var(big a);

/** I2B: the minimal big-endian form, big_bytes_var(a) bytes, into room for at least that; returns the length. Gives away it. */
INTERNAL size_t big_write_var(uint8_t *bytes, size_t room, big a);

/* ---- Comparison: 1 or 0; widths may differ ---- */

INTERNAL uint64_t big_is_zero(big a);
INTERNAL uint64_t big_is_odd(big a);
INTERNAL uint64_t big_equal(big a, big b);
INTERNAL uint64_t big_equal_u64(big a, uint64_t b);
INTERNAL uint64_t big_less(big a, big b); /* a < b */
INTERNAL uint64_t big_bit(big a, size_t i); /* i public; 0 beyond the width */
INTERNAL uint64_t big_bits_at(big a, size_t from, unsigned width); /* bits from .. from + width - 1, width < 64; likewise */

/* ---- Integers. Operands may be narrower than the result and are widened. ---- */

/** r = a + b, r - b; returns the carry, the borrow out of r's width. a.n, b.n <= r.n. */
INTERNAL uint64_t big_add(big r, big a, big b);
INTERNAL uint64_t big_sub(big r, big a, big b);

/** r = a b. r.n >= a.n + b.n; r overlaps neither. */
INTERNAL void big_mul(big r, big a, big b);

/** r = a b + c. r.n >= max(a.n + b.n, c.n); r overlaps none. Returns the carry. */
INTERNAL uint64_t big_mul_add(big r, big a, big b, big c);

/** Shift by a public number of bits. left: bits lost MUST be zero. r may be wider or narrower. */
INTERNAL void big_shift_left(big r, big a, size_t bits);
INTERNAL void big_shift_right(big r, big a, size_t bits);

/** quotient (a.n limbs at least) and remainder r = a mod m (r.n >= m.n) by a PUBLIC m > 0 whose top limb is not zero: GMP looks its
 *  reciprocal up in a table. By secret odd numbers: mod_reduce and big_divide_exact. */
INTERNAL void big_divide(big quotient, big r, big a, big m);
INTERNAL void big_mod(big r, big a, big m);

/** r = a / m for odd m that divides a: L(u) = (u - 1)/N. r.n <= a.n, the quotient MUST fit. */
INTERNAL void big_divide_exact(big r, big a, big m);

/** r = a^-1 mod m for odd m > 1, any a (r.n = m.n, a.n <= m.n, a < m). Returns 1, or 0 when there is none and r is meaningless. */
INTERNAL uint64_t big_inverse_odd(big r, big a, big m);

/** r = a^-1 mod m for odd a and any m > 1 (N^-1 mod phi): r.n = m.n, both top limbs not zero. Returns as big_inverse_odd. */
INTERNAL uint64_t big_inverse_of_odd(big r, big a, big m);

/* ---- Public numbers only: mpz ---- */

INTERNAL MUST_USE bool big_inverse_var(big r, big a, big m); /* false: none */
INTERNAL bool big_coprime_var(big a, big b);
INTERNAL int big_jacobi_var(big a, big n); /* n odd and > 0 */
INTERNAL void big_isqrt_var(big r, big a); /* floor */
INTERNAL bool big_probably_prime_var(big a); /* Baillie-PSW and more, as mpz_probab_prime_p with 30 */

/** Does any prime below 1000 divide a? */
INTERNAL bool big_has_small_factor_var(big a);

/* ---- Arithmetic modulo an odd number ----
 *
 * Residues are < m and exactly as wide as m. */

#define MONTGOMERY_WORDS 80u /* widest form inside: 80 digits of 52 bits */

typedef struct modulus {
    size_t n;                         /* limbs */
    size_t words;                     /* of a residue in the form of montgomery.h, which the fields below have too */
    uint64_t value[BIG_MODULUS_LIMBS];
    uint64_t form[MONTGOMERY_WORDS];   /* m */
    uint64_t square[MONTGOMERY_WORDS]; /* R^2 mod m */
    uint64_t inverse;                 /* -m^-1 mod 2^64 */
} modulus;

/** m > 1, odd, its top limb not zero, at most BIG_MODULUS_LIMBS. The value may be secret, its bit length is not; if it is secret, so is
 *  the modulus object. */
INTERNAL void modulus_init(modulus *m, big value);
INTERNAL big modulus_value(const modulus *m);

/** r = a mod m, a of any width up to BIG_MAX_LIMBS. */
INTERNAL void mod_reduce(big r, big a, const modulus *m);
INTERNAL void mod_add(big r, big a, big b, const modulus *m);
INTERNAL void mod_sub(big r, big a, big b, const modulus *m);
INTERNAL void mod_negate(big r, big a, const modulus *m);
INTERNAL void mod_mul(big r, big a, big b, const modulus *m);

/** r = base^exponent. 0^0 = 1. Exponents are of any width. */
INTERNAL void mod_exp(big r, big base, big exponent, const modulus *m);
INTERNAL void mod_exp_var(big r, big base, big exponent, const modulus *m);

/** r[i] = base[i]^exponent for count bases: one exponent, and modulo 1024 bits about twice as fast as one by one. r[i] may be base[i]. */
INTERNAL void mod_exp_many(const big *r, const big *base, size_t count, big exponent, const modulus *m);
INTERNAL void mod_exp_many_var(const big *r, const big *base, size_t count, big exponent, const modulus *m);

/** r = product of base[i]^exponent[i], simultaneously. Constant time: count <= MOD_PRODUCT_MAX. */
#define MOD_PRODUCT_MAX 4u
INTERNAL void mod_exp_product(big r, const big *base, const big *exponent, size_t count, const modulus *m);

/** The same for any count >= 1 of public exponents. False: no memory (the tables lie on the heap; count <= MOD_PRODUCT_MAX needs none).
 *  Secret bases or moduli: count <= MOD_PRODUCT_MAX only. */
INTERNAL MUST_USE bool mod_exp_product_var(big r, const big *base, const big *exponent, size_t count, const modulus *m);

/* ---- Fixed bases: tables that make many powers of one base cheap ---- */

typedef struct fixed_base fixed_base;
typedef enum fixed_place { FIXED_HEAP, FIXED_ARENA } fixed_place; /* FIXED_ARENA where modulus or base are secret */

/** A table for exponents of up to exponent_bits, as large as pays for about `uses` of them (at most max_len bytes, if that is possible).
 *  secret_exponents: it is made for fixed_exp_product, whose lookups read a whole table each; otherwise for fixed_exp_product_var.
 *  Either function works with either. NULL: no memory. m must outlive it. base < m. */
INTERNAL MUST_USE fixed_base *fixed_base_new(
    const modulus *m, big base, size_t exponent_bits, size_t uses, bool secret_exponents, size_t max_len, fixed_place place);
INTERNAL void fixed_base_free(fixed_base *table);

/** r = product of table[i]^exponent[i], one modulus, count >= 1. Exponents have at most the table's bits: limbs above MUST be 0. */
INTERNAL void fixed_exp_product(big r, const fixed_base *const *table, const big *exponent, size_t count);
INTERNAL void fixed_exp_product_var(big r, const fixed_base *const *table, const big *exponent, size_t count);

/* ---- Known factors. SECRET: keep it in the arena. ----
 *
 * N = p q for two different primes = 3 mod 4 of one width (p.n = q.n <= BIG_MODULUS_LIMBS / 4, top bits set). Bases must be units; results
 * mod N are 2 p.n wide, mod N^2 4 p.n. Fields may be read. */

typedef struct crt {
    modulus p, q;             /* k limbs */
    modulus p_half, q_half;   /* (p-1)/2, (q-1)/2: k limbs, odd */
    modulus pp, qq;           /* p^2, q^2: 2k limbs */
    modulus n;                /* N: 2k limbs */
    uint64_t p_inverse[BIG_MODULUS_LIMBS / 4];  /* p^-1 mod q */
    uint64_t pp_inverse[BIG_MODULUS_LIMBS / 2]; /* p^-2 mod q^2 */
} crt;

/** Returns 1, or 0 when p and q are not coprime (then c is meaningless). That they are prime is not checked. */
INTERNAL uint64_t crt_init(crt *c, big p, big q);

/** r = e mod p-1, given half, the modulus (p-1)/2: an exponent for mod_exp modulo p. r.n = half->n. */
INTERNAL void crt_reduce_exponent(big r, big e, const modulus *half);

/** r mod N with r = rp mod p, r = rq mod q; likewise mod N^2 from residues mod p^2, q^2. */
INTERNAL void crt_combine(big r, big rp, big rq, const crt *c);
INTERNAL void crt_combine_square(big r, big rp, big rq, const crt *c);

/** r = product of base[i]^exponent[i] mod N; bases and exponents of any width up to BIG_MAX_LIMBS; count <= MOD_PRODUCT_MAX. Exponents
 *  wider than p are reduced mod p-1 and q-1 first: long ones cost no more (and with them `_var` is constant time too). */
INTERNAL void crt_exp_product(big r, const big *base, const big *exponent, size_t count, const crt *c);
INTERNAL void crt_exp_product_var(big r, const big *base, const big *exponent, size_t count, const crt *c);
INTERNAL void crt_exp(big r, big base, big exponent, const crt *c);

/** r[i] = base[i]^exponent mod N. */
INTERNAL void crt_exp_many(const big *r, const big *base, size_t count, big exponent, const crt *c);

/** The same mod N^2; exponents are taken as they are. */
INTERNAL void crt_exp_product_square(big r, const big *base, const big *exponent, size_t count, const crt *c);
INTERNAL void crt_exp_product_square_var(big r, const big *base, const big *exponent, size_t count, const crt *c);

/** r = base^N mod N^2: what Paillier encryption needs, at half the price of the general function. base mod N counts. */
INTERNAL void crt_nth_power(big r, big base, const crt *c);

#endif
