#ifndef TSS_GG18_PROOFS_IMPL_H
#define TSS_GG18_PROOFS_IMPL_H

#include <stdio.h>
#include <string.h>

#include "../random.h"
#include "../secret.h"
#include "proofs.h"

/* r = q^power; r.n = 4 power. */
static void order_power(big r, unsigned power) {
    uint64_t product_d[7 * Q_LIMBS] = {0};
    big_zero(r);
    big_set(big_low(r, Q_LIMBS), curve_order());
    for (unsigned i = 1; i < power; i++) {
        const big product = {product_d, (i + 1) * Q_LIMBS};
        big_mul(product, big_low(r, i * Q_LIMBS), curve_order());
        big_set(big_low(r, product.n), product);
    }
}

/* r = q^power m, r.n = 4 power + m.n: the bounds of the masks. */
static void order_power_times(big r, unsigned power, big m) {
    uint64_t power_d[7 * Q_LIMBS];
    const big q_power = {power_d, power * Q_LIMBS};
    order_power(q_power, power);
    big_mul(r, q_power, m);
}

/* e = hash mod q */
static bool challenge_end(scalar *e, transcript *t) {
    uint8_t digest32[32];
    const bool ok = transcript_end(t, digest32);
    (void)scalar_set_bytes(e, digest32);
    return ok;
}

/* ---- dln ---- */

static bool dln_challenge(
    uint8_t *digest32, const gg18_session *session, const gg18_public *of, const span *alpha, bool inverse) {
    transcript t;
    const size_t parts = 3 + DLN_ITERATIONS;
    const gg18_tag tag = session_tag(session);
    if (session->v3) {
        transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, parts);
    } else {
        transcript_begin(&t, parts);
    }
    transcript_big(&t, inverse ? BIG_OF(of->h2) : BIG_OF(of->h1));
    transcript_big(&t, inverse ? BIG_OF(of->h1) : BIG_OF(of->h2));
    transcript_big(&t, BIG_OF(of->n_tilde));
    for (size_t k = 0; k < DLN_ITERATIONS; k++) {
        transcript_integer(&t, alpha[k]);
    }
    return transcript_end(&t, digest32);
}

/* Bit k of the challenge as an integer, the lowest first. */
static uint64_t challenge_bit(const uint8_t *digest32, size_t k) { return (uint64_t)(digest32[31 - k / 8] >> (k % 8)) & 1; }

INTERNAL bool dln_prove(
    draft *d, size_t part, const gg18_session *session, const gg18_public *own, const ring_private *ring, bool inverse) {
    const crt *n = &ring->n;
    BIG(order, N_BITS); /* p'q', that of h1 and h2 */
    BIG(x, N_BITS);
    big_mul(order, modulus_value(&n->p_half), modulus_value(&n->q_half));
    if (inverse) {
        if (!decided(big_inverse_odd(x, BIG_OF(ring->alpha), order))) {
            return false;
        }
    } else {
        big_set(x, BIG_OF(ring->alpha));
    }
    const big base = inverse ? BIG_OF(own->h2) : BIG_OF(own->h1);

    /* Fixed bases modulo each prime; a_k is reduced modulo the order there. */
    BIG(base_p, P_BITS);
    BIG(base_q, P_BITS);
    mod_reduce(base_p, base, &n->p);
    mod_reduce(base_q, base, &n->q);
    fixed_base *table_p = fixed_base_new(&n->p, base_p, P_BITS, DLN_ITERATIONS, true, 256 * 1024, FIXED_ARENA);
    fixed_base *table_q = fixed_base_new(&n->q, base_q, P_BITS, DLN_ITERATIONS, true, 256 * 1024, FIXED_ARENA);
    uint64_t(*a)[N_LIMBS] = secret_alloc(DLN_ITERATIONS * sizeof(*a));
    const bool room = table_p != NULL && table_q != NULL && a != NULL;

    static const uint8_t count = DLN_ITERATIONS;
    draft_bytes(d, part, (span){&count, 1});
    for (size_t k = 0; room && k < DLN_ITERATIONS; k++) {
        BIG(exponent, P_BITS);
        BIG(power_p, P_BITS);
        BIG(power_q, P_BITS);
        BIG(alpha, N_BITS);
        random_below(BIG_OF(a[k]), order);
        crt_reduce_exponent(exponent, BIG_OF(a[k]), &n->p_half);
        fixed_exp_product(power_p, (const fixed_base *const[]){table_p}, &exponent, 1);
        crt_reduce_exponent(exponent, BIG_OF(a[k]), &n->q_half);
        fixed_exp_product(power_q, (const fixed_base *const[]){table_q}, &exponent, 1);
        crt_combine(alpha, power_p, power_q, n);
        draft_integer(d, part + 1 + k, alpha);
    }
    uint8_t digest32[32];
    const bool ok = room && dln_challenge(digest32, session, own, d->parts + part + 1, inverse);

    draft_bytes(d, part + 1 + DLN_ITERATIONS, (span){&count, 1});
    for (size_t k = 0; ok && k < DLN_ITERATIONS; k++) {
        /* t = a + bit x mod p'q' */
        BIG(zero, N_BITS);
        BIG(term, N_BITS);
        BIG(sum, N_BITS + 64);
        BIG(less, N_BITS + 64);
        big_zero(zero);
        big_select(term, x, zero, challenge_bit(digest32, k));
        big_set(sum, BIG_OF(a[k]));
        (void)big_add(sum, sum, term);
        const uint64_t borrow = big_sub(less, sum, order);
        big_select(sum, sum, less, borrow);
        draft_integer(d, part + 2 + DLN_ITERATIONS + k, big_low(sum, N_LIMBS));
    }
    secret_free(a);
    fixed_base_free(table_p);
    fixed_base_free(table_q);
    return ok;
}

/* Every iteration is checked on its own. A random combination of them would be cheaper, and wrong: N~ is its maker's, who may know
 * elements of small order, -1 at least, and a wrong factor of order d would survive a combination with chance 1/d. That chance is
 * what an attacker needs: with h1 = h2^y times such an element, every commitment in this ring would give away its secret mod d. */
INTERNAL bool dln_verify(
    const span *parts, const gg18_session *session, const gg18_public *theirs, const modulus *n_tilde, bool inverse) {
    const big h1 = inverse ? BIG_OF(theirs->h2) : BIG_OF(theirs->h1);
    const big h2 = inverse ? BIG_OF(theirs->h1) : BIG_OF(theirs->h2);
    const big m = modulus_value(n_tilde);
    const span *alpha_parts = parts + 1;
    const span *t_parts = parts + 2 + DLN_ITERATIONS;
    const span counts[2] = {span_minimal(parts[0]), span_minimal(parts[1 + DLN_ITERATIONS])};
    for (size_t i = 0; i < 2; i++) {
        if (counts[i].len != 1 || counts[i].at[0] != DLN_ITERATIONS) {
            return false;
        }
    }
    uint8_t digest32[32];
    BIG(alpha, N_BITS);
    BIG(t, N_BITS);
    BIG(left, N_BITS);
    BIG(product, N_BITS); /* of all alpha: one gcd for them all */
    big_set_u64(product, 1);
    if (!dln_challenge(digest32, session, theirs, alpha_parts, inverse)) {
        return false;
    }
    fixed_base *powers = fixed_base_new(n_tilde, h1, N_BITS, DLN_ITERATIONS, false, 1024 * 1024, FIXED_HEAP);
    bool ok = powers != NULL;
    if (!ok) {
        party_own_failure();
    }
    for (size_t k = 0; ok && k < DLN_ITERATIONS; k++) {
        ok = part_below(alpha, alpha_parts[k], m) && part_below(t, t_parts[k], m) && big_bits_var(alpha) > 1
            && big_bits_var(t) > 1;
        if (ok) {
            mod_mul(product, product, alpha, n_tilde);
            fixed_exp_product_var(left, (const fixed_base *const[]){powers}, &t, 1);
            if (challenge_bit(digest32, k) == 1) {
                mod_mul(alpha, alpha, h2, n_tilde);
            }
            ok = big_equal(left, alpha) == 1;
        }
    }
    fixed_base_free(powers);
    return ok && big_coprime_var(product, m);
}

/* ---- mod ---- */

/* Y_k = HT(tag; W, N, Y_0 .. Y_(k-1)) mod N: N has 2048 bits, so that is the bare hash. */
static bool mod_challenges(uint8_t (*y)[32], gg18_tag tag, span w, big n) {
    for (size_t k = 0; k < MOD_ITERATIONS; k++) {
        transcript t;
        transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, 2 + k);
        transcript_integer(&t, w);
        transcript_big(&t, n);
        for (size_t i = 0; i < k; i++) {
            transcript_integer(&t, (span){y[i], 32});
        }
        if (!transcript_end(&t, y[k])) {
            return false;
        }
    }
    return true;
}

/* Modulo a prime p = 3 mod 4 every unit is plus or minus a square. root: the fourth root of that square which is a square itself;
 * *is_square: whether y is the square or its negative.
 * With E = ((p+1)/4)^2: y^E is that root up to sign, for y = -z gives (-1)^E z^E. */
static void fourth_root(big root, uint64_t *is_square, big y, big exponent, const modulus *p) {
    BIG(fourth, P_BITS);
    BIG(negative, P_BITS);
    mod_exp(root, y, exponent, p);
    mod_mul(fourth, root, root, p);
    mod_mul(fourth, fourth, fourth, p);
    *is_square = big_equal(fourth, y);
    mod_negate(negative, root, p);
    big_select(root, negative, root, (1 - *is_square) & big_is_odd(exponent));
}

/* E = ((p+1)/4)^2 mod p-1 */
static void fourth_root_exponent(big e, const modulus *p, const modulus *p_half) {
    BIG(root, P_BITS);
    BIG(square, N_BITS);
    BIG(one, 64);
    big_set_u64(one, 1);
    big_shift_right(root, modulus_value(p), 2); /* p = 3 mod 4: (p+1)/4 = floor(p/4) + 1 */
    (void)big_add(root, root, one);
    big_mul(square, root, root);
    crt_reduce_exponent(e, square, p_half);
}

INTERNAL bool mod_prove(draft *d, size_t part, gg18_tag tag, const paillier_private *key) {
    const crt *c = &key->n;
    const big n = modulus_value(&c->n);
    BIG(w, N_BITS);
    BIG(ep, P_BITS);
    BIG(eq, P_BITS);
    BIG(w_p, P_BITS);
    BIG(w_q, P_BITS);
    BIG(w_root_p, P_BITS);
    BIG(w_root_q, P_BITS);
    uint64_t w_square_p;
    uint64_t w_square_q;
    fourth_root_exponent(ep, &c->p, &c->p_half);
    fourth_root_exponent(eq, &c->q, &c->q_half);
    do {
        random_unit(w, n);
        mod_reduce(w_p, w, &c->p);
        mod_reduce(w_q, w, &c->q);
        fourth_root(w_root_p, &w_square_p, w_p, ep, &c->p);
        fourth_root(w_root_q, &w_square_q, w_q, eq, &c->q);
        /* A square modulo one prime alone: Jacobi symbol -1, which everybody sees. */
        const uint64_t jacobi = w_square_p ^ w_square_q;
        DECLASSIFY(&jacobi, sizeof(jacobi));
        if (jacobi == 1) {
            break;
        }
    } while (true);
    draft_integer(d, part, w);

    uint8_t y[MOD_ITERATIONS][32];
    if (!mod_challenges(y, tag, d->parts[part], n)) {
        return false;
    }
    /* phi is even and N odd, so N^-1 mod p-1 needs an inverse modulo an even number: through the odd half, by parity. */
    BIG(phi, N_BITS);
    BIG(n_inverse, N_BITS);
    BIG(one, 64);
    big_set_u64(one, 1);
    (void)big_sub(phi, n, modulus_value(&c->p));
    (void)big_sub(phi, phi, modulus_value(&c->q));
    (void)big_add(phi, phi, one);
    if (!decided(big_inverse_of_odd(n_inverse, n, phi))) {
        return false;
    }
    uint8_t bits_a[11] = {1};
    uint8_t bits_b[11] = {1}; /* 2^80 + sum a_k 2^k */
    for (size_t k = 0; k < MOD_ITERATIONS; k++) {
        BIG(yk, N_BITS);
        BIG(y_p, P_BITS);
        BIG(y_q, P_BITS);
        BIG(root_p, P_BITS);
        BIG(root_q, P_BITS);
        BIG(other, P_BITS);
        BIG(x, N_BITS);
        BIG(z, N_BITS);
        uint64_t square_p;
        uint64_t square_q;
        if (!big_from_bytes(yk, y[k], 32)) {
            return false;
        }
        mod_reduce(y_p, yk, &c->p);
        mod_reduce(y_q, yk, &c->q);
        fourth_root(root_p, &square_p, y_p, ep, &c->p);
        fourth_root(root_q, &square_q, y_q, eq, &c->q);
        /* (-1)^a W^b Y is a square modulo both: W mends a difference, then -1 turns both. */
        const uint64_t b = square_p ^ square_q;
        const uint64_t a = 1 ^ square_p ^ (b & (1 ^ w_square_p));
        mod_mul(other, root_p, w_root_p, &c->p);
        big_select(root_p, other, root_p, b);
        mod_mul(other, root_q, w_root_q, &c->q);
        big_select(root_q, other, root_q, b);
        crt_combine(x, root_p, root_q, c);
        crt_exp(z, yk, n_inverse, c);
        draft_integer(d, part + 1 + k, x);
        draft_integer(d, part + 3 + MOD_ITERATIONS + k, z);
        bits_a[10 - k / 8] = (uint8_t)(bits_a[10 - k / 8] | a << (k % 8));
        bits_b[10 - k / 8] = (uint8_t)(bits_b[10 - k / 8] | b << (k % 8));
    }
    draft_bytes(d, part + 1 + MOD_ITERATIONS, (span){bits_a, sizeof(bits_a)});
    draft_bytes(d, part + 2 + MOD_ITERATIONS, (span){bits_b, sizeof(bits_b)});
    return true;
}

INTERNAL bool mod_verify(const span *parts, gg18_tag tag, const modulus *n) {
    const big m = modulus_value(n);
    const span *x_parts = parts + 1;
    const span *z_parts = parts + 3 + MOD_ITERATIONS;
    BIG(w, N_BITS);
    BIG(a, 128);
    BIG(b, 128);
    if (big_bits_var(m) != N_BITS || big_is_odd(m) == 0 || big_probably_prime_var(m)) {
        return false;
    }
    /* Jacobi -1 exactly: 0 would be a W that shares a factor with N. */
    if (!part_below(w, parts[0], m) || big_is_zero(w) == 1 || big_jacobi_var(w, m) != -1) {
        return false;
    }
    if (!big_from_bytes(a, parts[1 + MOD_ITERATIONS].at, parts[1 + MOD_ITERATIONS].len)
        || !big_from_bytes(b, parts[2 + MOD_ITERATIONS].at, parts[2 + MOD_ITERATIONS].len)
        || big_bits_var(a) != MOD_ITERATIONS + 1 || big_bits_var(b) != MOD_ITERATIONS + 1) {
        return false;
    }
    uint64_t z_d[MOD_ITERATIONS][N_LIMBS];
    big z[MOD_ITERATIONS];
    BIG(x, N_BITS);
    BIG(product, N_BITS); /* of all X and Z: one gcd for them all */
    big_set_u64(product, 1);
    for (size_t k = 0; k < MOD_ITERATIONS; k++) {
        z[k] = BIG_OF(z_d[k]);
        if (!part_below(z[k], z_parts[k], m) || !part_below(x, x_parts[k], m)) {
            return false;
        }
        mod_mul(product, product, z[k], n);
        mod_mul(product, product, x, n);
    }
    if (big_is_zero(product) == 1 || !big_coprime_var(product, m)) {
        return false;
    }
    uint8_t y[MOD_ITERATIONS][32];
    if (!mod_challenges(y, tag, parts[0], m)) {
        return false;
    }
    mod_exp_many_var(z, z, MOD_ITERATIONS, m, n);
    for (size_t k = 0; k < MOD_ITERATIONS; k++) {
        BIG(right, N_BITS);
        /* Z^N == Y */
        if (!big_from_bytes(right, y[k], 32) || big_equal(z[k], right) == 0) {
            return false;
        }
        /* X^4 == (-1)^a W^b Y */
        if (big_bit(b, k) == 1) {
            mod_mul(right, right, w, n);
        }
        if (big_bit(a, k) == 1) {
            mod_negate(right, right, n);
        }
        if (!part_below(x, x_parts[k], m)) {
            return false;
        }
        mod_mul(x, x, x, n);
        mod_mul(x, x, x, n);
        if (big_equal(x, right) == 0) {
            return false;
        }
    }
    return true;
}

/* ---- fac ---- */

enum { FAC_P = 0, FAC_Q, FAC_A, FAC_B, FAC_T, FAC_SIGMA, FAC_Z1, FAC_Z2, FAC_W1, FAC_W2, FAC_V };

/* Widths in bits of the ranges: q^3 sqrt(N), q N~, q^3 N~, q N N~, q^3 N N~; responses have a bit or two more. */
enum {
    FAC_ALPHA_BITS = 3 * Q_BITS + P_BITS,
    FAC_MU_BITS = Q_BITS + N_BITS,
    FAC_X_BITS = 3 * Q_BITS + N_BITS,
    FAC_SIGMA_BITS = Q_BITS + 2 * N_BITS,
    FAC_R_BITS = 3 * Q_BITS + 2 * N_BITS,
};

/* r = q^3 isqrt(N) */
static void fac_bound_root(big r, big n) {
    BIG(root, P_BITS);
    big_isqrt_var(root, n);
    order_power_times(r, 3, root);
}

static bool fac_challenge(scalar *e, gg18_tag tag, const gg18_public *prover, const gg18_public *ring, const span *parts) {
    transcript t;
    transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, 4 + 6);
    transcript_big(&t, BIG_OF(prover->n));
    transcript_big(&t, BIG_OF(ring->n_tilde));
    transcript_big(&t, BIG_OF(ring->h1));
    transcript_big(&t, BIG_OF(ring->h2));
    for (size_t i = FAC_P; i <= FAC_SIGMA; i++) {
        transcript_integer(&t, parts[i]);
    }
    return challenge_end(e, &t);
}

INTERNAL bool fac_prove(
    draft *d, size_t part, gg18_tag tag, const gg18_private *own, const gg18_public *own_public, const ring_public *ring,
    const gg18_public *theirs) {
    const big p0 = BIG_OF(own->p);
    const big q0 = BIG_OF(own->q);
    const big nc = BIG_OF(theirs->n_tilde);
    BIG(root_bound, FAC_ALPHA_BITS);
    BIG(bound, FAC_R_BITS);
    BIG(nn, 2 * N_BITS);
    BIG(alpha, FAC_ALPHA_BITS);
    BIG(beta, FAC_ALPHA_BITS);
    BIG(mu, FAC_MU_BITS);
    BIG(nu, FAC_MU_BITS);
    BIG(x, FAC_X_BITS);
    BIG(y, FAC_X_BITS);
    BIG(sigma, FAC_SIGMA_BITS);
    BIG(r, FAC_R_BITS);
    fac_bound_root(root_bound, BIG_OF(own_public->n));
    random_below(alpha, root_bound);
    random_below(beta, root_bound);
    order_power_times(big_low(bound, BIG_LIMBS(FAC_MU_BITS)), 1, nc);
    random_below(mu, big_low(bound, mu.n));
    random_below(nu, big_low(bound, nu.n));
    order_power_times(big_low(bound, BIG_LIMBS(FAC_X_BITS)), 3, nc);
    random_below(x, big_low(bound, x.n));
    random_below(y, big_low(bound, y.n));
    big_mul(nn, BIG_OF(own_public->n), nc);
    order_power_times(big_low(bound, BIG_LIMBS(FAC_SIGMA_BITS)), 1, nn);
    random_below(sigma, big_low(bound, sigma.n));
    order_power_times(bound, 3, nn);
    random_unit(r, bound);

    BIG(commitment, N_BITS);
    BIG(q0_alpha, P_BITS + FAC_ALPHA_BITS);
    BIG(nu_alpha_r, FAC_R_BITS + 64);
    ring_commit(commitment, ring, p0, mu);
    draft_integer(d, part + FAC_P, commitment);
    ring_commit(commitment, ring, q0, nu);
    draft_integer(d, part + FAC_Q, commitment);
    ring_commit(commitment, ring, alpha, x);
    draft_integer(d, part + FAC_A, commitment);
    ring_commit(commitment, ring, beta, y);
    draft_integer(d, part + FAC_B, commitment);
    /* T = Q^alpha t^r, and Q = s^q0 t^nu */
    big_mul(q0_alpha, q0, alpha);
    (void)big_mul_add(nu_alpha_r, nu, alpha, r);
    ring_commit(commitment, ring, q0_alpha, nu_alpha_r);
    draft_integer(d, part + FAC_T, commitment);
    draft_integer(d, part + FAC_SIGMA, sigma);

    scalar e;
    if (!fac_challenge(&e, tag, own_public, theirs, d->parts + part)) {
        return false;
    }
    BIG(z, FAC_ALPHA_BITS + 64);
    BIG(w, FAC_X_BITS + 64);
    (void)big_mul_add(z, scalar_big(&e), p0, alpha);
    draft_integer(d, part + FAC_Z1, z);
    (void)big_mul_add(z, scalar_big(&e), q0, beta);
    draft_integer(d, part + FAC_Z2, z);
    (void)big_mul_add(w, scalar_big(&e), mu, x);
    draft_integer(d, part + FAC_W1, w);
    (void)big_mul_add(w, scalar_big(&e), nu, y);
    draft_integer(d, part + FAC_W2, w);
    /* V = e (sigma - nu p0) + r. It cannot be written when negative, which r makes a chance of 2^-1024. */
    BIG(v, FAC_R_BITS + 64);
    BIG(nu_p0, FAC_MU_BITS + P_BITS);
    BIG(e_nu_p0, FAC_MU_BITS + P_BITS + Q_BITS);
    (void)big_mul_add(v, scalar_big(&e), sigma, r);
    big_mul(nu_p0, nu, p0);
    big_mul(e_nu_p0, nu_p0, scalar_big(&e));
    const uint64_t negative = big_sub(v, v, e_nu_p0);
    draft_integer(d, part + FAC_V, v);
    return !decided(negative);
}

INTERNAL bool fac_verify(
    const span *parts, gg18_tag tag, const gg18_public *theirs, const ring_private *ring, const gg18_public *own) {
    const big n0 = BIG_OF(theirs->n);
    const big nc = BIG_OF(own->n_tilde);
    const modulus *m = &ring->n.n;
    if (big_bits_var(n0) != N_BITS) {
        return false;
    }
    uint64_t unit_d[FAC_T + 1][N_LIMBS];
    for (size_t i = FAC_P; i <= FAC_T; i++) {
        if (!part_unit(BIG_OF(unit_d[i]), parts[i], nc)) {
            return false;
        }
    }
    BIG(nn, 2 * N_BITS);
    BIG(bound, FAC_R_BITS);
    BIG(multiple, FAC_R_BITS + 64);
    BIG(sigma, FAC_SIGMA_BITS);
    BIG(z1, FAC_ALPHA_BITS);
    BIG(z2, FAC_ALPHA_BITS);
    BIG(w1, FAC_X_BITS + 64);
    BIG(w2, FAC_X_BITS + 64);
    BIG(v, FAC_R_BITS + 64);
    big_mul(nn, n0, nc);
    order_power_times(big_low(bound, sigma.n), 1, nn);
    if (!part_below(sigma, parts[FAC_SIGMA], big_low(bound, sigma.n))) {
        return false;
    }
    fac_bound_root(big_low(bound, z1.n), n0);
    if (!part_below(z1, parts[FAC_Z1], big_low(bound, z1.n)) || !part_below(z2, parts[FAC_Z2], big_low(bound, z2.n))) {
        return false;
    }
    order_power_times(big_low(bound, BIG_LIMBS(FAC_X_BITS)), 3, nc);
    big_shift_left(big_low(multiple, w1.n), big_low(bound, BIG_LIMBS(FAC_X_BITS)), 1);
    if (!part_below(w1, parts[FAC_W1], big_low(multiple, w1.n)) || !part_below(w2, parts[FAC_W2], big_low(multiple, w2.n))) {
        return false;
    }
    order_power_times(bound, 3, nn);
    big_shift_left(multiple, bound, 2);
    scalar e;
    if (!part_below(v, parts[FAC_V], multiple) || !fac_challenge(&e, tag, theirs, own, parts)) {
        return false;
    }
    BIG(left, N_BITS);
    BIG(right, N_BITS);
    BIG(factor, N_BITS);
    /* s^Z1 t^W1 == A P^e, s^Z2 t^W2 == B Q^e */
    const big first[2] = {BIG_OF(unit_d[FAC_P]), BIG_OF(unit_d[FAC_Q])};
    const big second[2] = {BIG_OF(unit_d[FAC_A]), BIG_OF(unit_d[FAC_B])};
    for (size_t i = 0; i < 2; i++) {
        ring_commit_own(left, ring, i == 0 ? z1 : z2, i == 0 ? w1 : w2);
        crt_exp_product_var(right, &first[i], (const big[]){scalar_big(&e)}, 1, &ring->n);
        mod_mul(right, right, second[i], m);
        if (!decided(big_equal(left, right))) {
            return false;
        }
    }
    /* Q^Z1 t^V == T (s^N0 t^sigma)^e */
    BIG(zero, 64);
    big_set_u64(zero, 0);
    crt_exp_product_var(left, &first[1], &z1, 1, &ring->n);
    ring_commit_own(factor, ring, zero, v);
    mod_mul(left, left, factor, m);
    ring_commit_own(right, ring, n0, sigma);
    crt_exp_product_var(right, &right, (const big[]){scalar_big(&e)}, 1, &ring->n);
    mod_mul(right, right, BIG_OF(unit_d[FAC_T]), m);
    return decided(big_equal(left, right));
}

/* ---- Paillier key ---- */

static void transcript_decimal(transcript *t, unsigned value) {
    char text[12];
    const int len = snprintf(text, sizeof(text), "%u", value);
    transcript_bytes(t, (span){(const uint8_t *)text, (size_t)len});
}

/* x_i: 2048 bits of hashes with the counter of rejections, which goes on from one i to the next. */
static bool paillier_challenges(uint64_t (*x)[N_LIMBS], uint32_t key_of_prover, const point *Y, big n) {
    const uint8_t key[4] = {
        (uint8_t)(key_of_prover >> 24), (uint8_t)(key_of_prover >> 16), (uint8_t)(key_of_prover >> 8), (uint8_t)key_of_prover};
    unsigned rejected = 0;
    for (unsigned i = 0; i < PAILLIER_ITERATIONS;) {
        uint8_t candidate[N_BYTES];
        for (unsigned block = 0; block < N_BYTES / 32; block++) {
            transcript t;
            transcript_begin(&t, 7);
            transcript_decimal(&t, i);
            transcript_decimal(&t, block);
            transcript_decimal(&t, rejected);
            transcript_integer(&t, (span){key, sizeof(key)});
            transcript_point(&t, Y);
            transcript_big(&t, n);
            if (!transcript_end(&t, candidate + 32 * block)) {
                return false;
            }
        }
        if (part_unit(BIG_OF(x[i]), (span){candidate, sizeof(candidate)}, n)) {
            i++;
        } else {
            rejected++;
        }
    }
    return true;
}

INTERNAL bool paillier_prove(draft *d, size_t part, uint32_t key_of_prover, const point *Y, const paillier_private *key) {
    const big n = modulus_value(&key->n.n);
    uint64_t x[PAILLIER_ITERATIONS][N_LIMBS];
    BIG(phi, N_BITS);
    BIG(n_inverse, N_BITS);
    BIG(one, 64);
    big_set_u64(one, 1);
    (void)big_sub(phi, n, modulus_value(&key->n.p));
    (void)big_sub(phi, phi, modulus_value(&key->n.q));
    (void)big_add(phi, phi, one);
    if (!paillier_challenges(x, key_of_prover, Y, n) || !decided(big_inverse_of_odd(n_inverse, n, phi))) {
        return false;
    }
    big pi[PAILLIER_ITERATIONS];
    for (size_t i = 0; i < PAILLIER_ITERATIONS; i++) {
        pi[i] = BIG_OF(x[i]);
    }
    crt_exp_many(pi, pi, PAILLIER_ITERATIONS, n_inverse, &key->n);
    for (size_t i = 0; i < PAILLIER_ITERATIONS; i++) {
        draft_integer(d, part + i, pi[i]);
    }
    return true;
}

INTERNAL bool paillier_verify(const span *parts, uint32_t key_of_prover, const point *Y, const modulus *n) {
    uint64_t x[PAILLIER_ITERATIONS][N_LIMBS];
    uint64_t pi_d[PAILLIER_ITERATIONS][N_LIMBS];
    big pi[PAILLIER_ITERATIONS];
    const big m = modulus_value(n);
    if (big_has_small_factor_var(m)) {
        return false;
    }
    for (size_t i = 0; i < PAILLIER_ITERATIONS; i++) {
        pi[i] = BIG_OF(pi_d[i]);
        if (!part_below(pi[i], parts[i], m) || big_is_zero(pi[i]) == 1) {
            return false;
        }
    }
    if (!paillier_challenges(x, key_of_prover, Y, m)) {
        return false;
    }
    mod_exp_many_var(pi, pi, PAILLIER_ITERATIONS, m, n);
    for (size_t i = 0; i < PAILLIER_ITERATIONS; i++) {
        if (big_equal(pi[i], BIG_OF(x[i])) == 0) {
            return false;
        }
    }
    return true;
}

/* ---- Schnorr ---- */

/* Points of the statement, the generator, then alpha as transmitted. R is NULL for the plain proof. */
static bool schnorr_challenge(scalar *c, gg18_tag tag, const point *X, const point *R, const span *alpha) {
    transcript t;
    transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, R == NULL ? 6 : 8);
    transcript_point(&t, X);
    if (R != NULL) {
        transcript_point(&t, R);
    }
    transcript_point(&t, curve_generator());
    transcript_integer(&t, alpha[0]);
    transcript_integer(&t, alpha[1]);
    return challenge_end(c, &t);
}

INTERNAL bool schnorr_prove(draft *d, size_t part, gg18_tag tag, const scalar *x, const point *X) {
    scalar a;
    scalar c;
    point alpha;
    scalar_random(&a);
    point_mul_base(&alpha, &a);
    draft_point(d, part, &alpha);
    const bool ok = schnorr_challenge(&c, tag, X, NULL, d->parts + part);
    scalar_mul(&c, &c, x);
    scalar_add(&a, &a, &c);
    draft_scalar(d, part + 2, &a);
    return ok;
}

INTERNAL bool schnorr_verify(const span *parts, gg18_tag tag, const point *X) {
    point alpha;
    point left;
    point right;
    scalar t;
    scalar c;
    if (!part_point(&alpha, parts) || !part_scalar(&t, parts[2]) || !schnorr_challenge(&c, tag, X, NULL, parts)) {
        return false;
    }
    /* t G == alpha + c X */
    point_set_infinity(&left);
    point_add_base_var(&left, &left, &t);
    point_mul_var(&right, X, &c);
    point_add(&right, &right, &alpha);
    return point_equal(&left, &right);
}

INTERNAL bool v_schnorr_prove(
    draft *d, size_t part, gg18_tag tag, const scalar *s, const scalar *l, const point *V, const point *R) {
    scalar a;
    scalar b;
    scalar c;
    scalar term;
    point alpha;
    point base;
    scalar_random(&a);
    scalar_random(&b);
    point_mul(&alpha, R, &a);
    point_mul_base(&base, &b);
    point_add(&alpha, &alpha, &base);
    draft_point(d, part, &alpha);
    const bool ok = schnorr_challenge(&c, tag, V, R, d->parts + part);
    scalar_mul(&term, &c, s);
    scalar_add(&a, &a, &term);
    scalar_mul(&term, &c, l);
    scalar_add(&b, &b, &term);
    draft_scalar(d, part + 2, &a);
    draft_scalar(d, part + 3, &b);
    return ok;
}

INTERNAL bool v_schnorr_verify(const span *parts, gg18_tag tag, const point *V, const point *R) {
    point alpha;
    point left;
    point right;
    scalar t;
    scalar u;
    scalar c;
    if (!part_point(&alpha, parts) || !part_scalar(&t, parts[2]) || !part_scalar(&u, parts[3])
        || !schnorr_challenge(&c, tag, V, R, parts)) {
        return false;
    }
    /* t R + u G == alpha + c V */
    point_mul_var(&left, R, &t);
    point_add_base_var(&left, &left, &u);
    point_mul_var(&right, V, &c);
    point_add(&right, &right, &alpha);
    return point_equal(&left, &right);
}

/* ---- Alice's range proof ---- */

enum { RANGE_Z = 0, RANGE_U, RANGE_W, RANGE_S, RANGE_S1, RANGE_S2 };

/* q^3, q N~, q^3 N~ */
enum { MTA_S1_BITS = 3 * Q_BITS, MTA_RHO_BITS = Q_BITS + N_BITS, MTA_S2_BITS = 3 * Q_BITS + N_BITS };

static void transcript_paillier_key(transcript *t, big n) {
    BIG(generator, N_BITS);
    BIG(one, 64);
    big_set_u64(one, 1);
    (void)big_add(generator, n, one); /* N is odd: no carry */
    transcript_big(t, n);
    transcript_big(t, generator);
}

static void transcript_ring(transcript *t, const gg18_public *of) {
    transcript_big(t, BIG_OF(of->n_tilde));
    transcript_big(t, BIG_OF(of->h1));
    transcript_big(t, BIG_OF(of->h2));
}

static bool range_challenge(
    scalar *e, const gg18_session *session, gg18_tag tag, big n, const gg18_public *ring, big c, const span *parts) {
    transcript t;
    if (session->v3) {
        transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, 2 + 3 + 1 + 3);
    } else {
        transcript_begin(&t, 2 + 1 + 3);
    }
    transcript_paillier_key(&t, n);
    if (session->v3) {
        transcript_ring(&t, ring);
    }
    transcript_big(&t, c);
    for (size_t i = RANGE_Z; i <= RANGE_W; i++) {
        transcript_integer(&t, parts[i]);
    }
    return challenge_end(e, &t);
}

/* r = a e + b, written; for responses that are integers. */
static void draft_response(draft *d, size_t part, const scalar *e, big a, big b) {
    uint64_t response_d[BIG_MAX_LIMBS];
    const size_t product = Q_LIMBS + a.n;
    const big response = {response_d, (product > b.n ? product : b.n) + 1};
    (void)big_mul_add(response, scalar_big(e), a, b);
    draft_integer(d, part, response);
}

INTERNAL bool range_prove(
    draft *d, size_t part, const gg18_session *session, gg18_tag tag, const scalar *m, big r, big c,
    const paillier_private *key, const ring_public *ring, const gg18_public *theirs) {
    const big n = modulus_value(&key->n.n);
    const big nt = BIG_OF(theirs->n_tilde);
    BIG(bound, MTA_S2_BITS);
    BIG(alpha, MTA_S1_BITS);
    BIG(beta, N_BITS);
    BIG(gamma, MTA_S2_BITS);
    BIG(rho, MTA_RHO_BITS);
    order_power(big_low(bound, alpha.n), 3);
    random_below(alpha, big_low(bound, alpha.n));
    random_unit(beta, n);
    order_power_times(bound, 3, nt);
    random_below(gamma, bound);
    order_power_times(big_low(bound, rho.n), 1, nt);
    random_below(rho, big_low(bound, rho.n));

    BIG(value, N_BITS);
    BIG(u, NN_BITS);
    ring_commit(value, ring, scalar_big(m), rho);
    draft_integer(d, part + RANGE_Z, value);
    paillier_encrypt_own(u, alpha, beta, key);
    draft_integer(d, part + RANGE_U, u);
    ring_commit(value, ring, alpha, gamma);
    draft_integer(d, part + RANGE_W, value);

    scalar e;
    if (!range_challenge(&e, session, tag, n, theirs, c, d->parts + part)) {
        return false;
    }
    crt_exp(value, r, scalar_big(&e), &key->n);
    mod_mul(value, value, beta, &key->n.n);
    draft_integer(d, part + RANGE_S, value);
    draft_response(d, part + RANGE_S1, &e, scalar_big(m), alpha);
    draft_response(d, part + RANGE_S2, &e, rho, gamma);
    return true;
}

/* An integer response in [q, bound], and one in [q, 2 q^3 N~). */
static bool response_read(big r, span part, big bound) {
    return big_from_bytes(r, part.at, part.len) && big_less(r, curve_order()) == 0 && big_less(bound, r) == 0;
}

static bool response_read_masked(big r, span part, big nt) {
    BIG(bound, MTA_S2_BITS);
    BIG(twice, MTA_S2_BITS + 64);
    order_power_times(bound, 3, nt);
    big_shift_left(twice, bound, 1);
    return part_below(r, part, twice) && big_less(r, curve_order()) == 0;
}

INTERNAL bool range_verify(
    const span *parts, const gg18_session *session, gg18_tag tag, big c, const paillier_public *key,
    const ring_private *ring, const gg18_public *own) {
    const big n = modulus_value(&key->n);
    const big nn = modulus_value(&key->nn);
    const big nt = BIG_OF(own->n_tilde);
    BIG(z, N_BITS);
    BIG(u, NN_BITS);
    BIG(w, N_BITS);
    BIG(s, N_BITS);
    BIG(s1, MTA_S1_BITS);
    BIG(s2, MTA_S2_BITS + 64);
    BIG(bound, MTA_S1_BITS);
    order_power(bound, 3);
    if (!part_unit(z, parts[RANGE_Z], nt) || !part_below(u, parts[RANGE_U], nn) || !big_coprime_var(u, n)
        || !part_unit(w, parts[RANGE_W], nt) || !part_unit(s, parts[RANGE_S], n)
        || !response_read(s1, parts[RANGE_S1], bound) || !response_read_masked(s2, parts[RANGE_S2], nt)) {
        return false;
    }
    /* Trivial answers, refused upstream since v3: they are what a prover without a witness would try. */
    if (big_equal_u64(s, 1) == 1 || big_equal_u64(z, 1) == 1 || big_equal(s1, s2) == 1) {
        return false;
    }
    scalar e;
    if (!range_challenge(&e, session, tag, n, own, c, parts)) {
        return false;
    }
    /* h1^S1 h2^S2 == W Z^e, in our ring */
    BIG(left, N_BITS);
    BIG(right, N_BITS);
    ring_commit_own(left, ring, s1, s2);
    crt_exp_product_var(right, &z, (const big[]){scalar_big(&e)}, 1, &ring->n);
    mod_mul(right, right, w, &ring->n.n);
    if (!decided(big_equal(left, right))) {
        return false;
    }
    /* U == (N+1)^S1 S^N c^-e */
    BIG(wide_s, NN_BITS);
    BIG(inverse, NN_BITS);
    BIG(product, NN_BITS);
    BIG(generator_power, NN_BITS);
    big_set(wide_s, s);
    if (!big_inverse_var(inverse, c, nn)
        || !mod_exp_product_var(
            product, (const big[]){wide_s, inverse}, (const big[]){n, scalar_big(&e)}, 2, &key->nn)) {
        return false;
    }
    paillier_generator_power(generator_power, s1, n);
    mod_mul(product, product, generator_power, &key->nn);
    return big_equal(product, u) == 1;
}

/* ---- Bob's proof ---- */

enum { BOB_Z = 0, BOB_Z_PRIME, BOB_T, BOB_V, BOB_W, BOB_S, BOB_S1, BOB_S2, BOB_T1, BOB_T2, BOB_U };
enum { BOB_T1_BITS = 7 * Q_BITS };

static bool bob_challenge(
    scalar *e, const gg18_session *session, gg18_tag tag, big n, const gg18_public *ring, const point *X, big c1, big c2,
    const span *parts) {
    transcript t;
    transcript_begin_tagged(&t, (span){tag.bytes, tag.len}, 2 + (session->v3 ? 3u : 0u) + (X != NULL ? 4u : 0u) + 2 + 5);
    transcript_paillier_key(&t, n);
    if (session->v3) {
        transcript_ring(&t, ring);
    }
    if (X != NULL) {
        transcript_point(&t, X);
    }
    transcript_big(&t, c1);
    transcript_big(&t, c2);
    if (X != NULL) {
        transcript_integer(&t, parts[BOB_U]);
        transcript_integer(&t, parts[BOB_U + 1]);
    }
    for (size_t i = BOB_Z; i <= BOB_W; i++) {
        transcript_integer(&t, parts[i]);
    }
    return challenge_end(e, &t);
}

INTERNAL bool bob_prove(
    draft *d, size_t part, const gg18_session *session, gg18_tag tag, big c1, big c2, const scalar *x, const point *X, big y,
    big r, const paillier_public *key, const ring_public *ring, const gg18_public *theirs) {
    const big n = modulus_value(&key->n);
    const big nt = BIG_OF(theirs->n_tilde);
    BIG(bound, MTA_S2_BITS);
    BIG(alpha, MTA_S1_BITS);
    BIG(rho, MTA_RHO_BITS);
    BIG(sigma, MTA_RHO_BITS);
    BIG(tau, MTA_S2_BITS);
    BIG(rho_prime, MTA_S2_BITS);
    BIG(beta, N_BITS);
    BIG(gamma, BOB_T1_BITS);
    order_power(big_low(bound, alpha.n), 3);
    random_below(alpha, big_low(bound, alpha.n));
    order_power_times(big_low(bound, rho.n), 1, nt);
    random_below(rho, big_low(bound, rho.n));
    random_below(sigma, big_low(bound, sigma.n));
    order_power_times(bound, 3, nt);
    random_below(tau, bound);
    random_below(rho_prime, bound);
    random_unit(beta, n);
    order_power(big_low(bound, gamma.n), 7);
    random_below(gamma, big_low(bound, gamma.n));

    BIG(value, N_BITS);
    BIG(v, NN_BITS);
    if (X != NULL) {
        scalar alpha_mod_q;
        point u;
        scalar_set_big(&alpha_mod_q, alpha);
        point_mul_base(&u, &alpha_mod_q);
        draft_point(d, part + BOB_U, &u);
    }
    ring_commit(value, ring, scalar_big(x), rho);
    draft_integer(d, part + BOB_Z, value);
    ring_commit(value, ring, alpha, rho_prime);
    draft_integer(d, part + BOB_Z_PRIME, value);
    ring_commit(value, ring, y, sigma);
    draft_integer(d, part + BOB_T, value);
    paillier_affine(v, c1, alpha, gamma, beta, key);
    draft_integer(d, part + BOB_V, v);
    ring_commit(value, ring, gamma, tau);
    draft_integer(d, part + BOB_W, value);

    scalar e;
    if (!bob_challenge(&e, session, tag, n, theirs, X, c1, c2, d->parts + part)) {
        return false;
    }
    mod_exp_var(value, r, scalar_big(&e), &key->n);
    mod_mul(value, value, beta, &key->n);
    draft_integer(d, part + BOB_S, value);
    draft_response(d, part + BOB_S1, &e, scalar_big(x), alpha);
    draft_response(d, part + BOB_S2, &e, rho, rho_prime);
    draft_response(d, part + BOB_T1, &e, y, gamma);
    draft_response(d, part + BOB_T2, &e, sigma, tau);
    return true;
}

INTERNAL bool bob_verify(
    big m2, const span *parts, const gg18_session *session, gg18_tag tag, big c1, const scalar *m1, big c2, const point *X,
    const paillier_private *key, const ring_private *ring, const gg18_public *own) {
    const big n = modulus_value(&key->n.n);
    const big nn = modulus_value(&key->nn);
    const big nt = BIG_OF(own->n_tilde);
    BIG(z, N_BITS);
    BIG(z_prime, N_BITS);
    BIG(t, N_BITS);
    BIG(v, NN_BITS);
    BIG(w, N_BITS);
    BIG(s, N_BITS);
    BIG(s1, MTA_S1_BITS);
    BIG(s2, MTA_S2_BITS + 64);
    BIG(t1, BOB_T1_BITS);
    BIG(t2, MTA_S2_BITS + 64);
    BIG(s1_bound, MTA_S1_BITS);
    BIG(t1_bound, BOB_T1_BITS);
    order_power(s1_bound, 3);
    order_power(t1_bound, 7);
    if (!part_unit(z, parts[BOB_Z], nt) || !part_unit(z_prime, parts[BOB_Z_PRIME], nt) || !part_unit(t, parts[BOB_T], nt)
        || !part_unit(w, parts[BOB_W], nt) || !part_below(v, parts[BOB_V], nn) || !big_coprime_var(v, n)
        || !part_unit(s, parts[BOB_S], n) || !response_read(s1, parts[BOB_S1], s1_bound)
        || !response_read_masked(s2, parts[BOB_S2], nt) || !response_read(t1, parts[BOB_T1], t1_bound)
        || !response_read_masked(t2, parts[BOB_T2], nt)) {
        return false;
    }
    point u;
    if (X != NULL && !part_point(&u, parts + BOB_U)) {
        return false;
    }
    scalar e;
    if (!bob_challenge(&e, session, tag, n, own, X, c1, c2, parts)) {
        return false;
    }
    if (X != NULL) {
        /* S1 G == e X + U */
        scalar s1_mod_q;
        point left;
        point right;
        scalar_set_big(&s1_mod_q, s1);
        point_set_infinity(&left);
        point_add_base_var(&left, &left, &s1_mod_q);
        point_mul_var(&right, X, &e);
        point_add(&right, &right, &u);
        if (!point_equal(&left, &right)) {
            return false;
        }
    }
    /* h1^S1 h2^S2 == Z^e Z', h1^T1 h2^T2 == T^e W, in our ring */
    BIG(left, N_BITS);
    BIG(right, N_BITS);
    ring_commit_own(left, ring, s1, s2);
    crt_exp_product_var(right, &z, (const big[]){scalar_big(&e)}, 1, &ring->n);
    mod_mul(right, right, z_prime, &ring->n.n);
    if (!decided(big_equal(left, right))) {
        return false;
    }
    ring_commit_own(left, ring, t1, t2);
    crt_exp_product_var(right, &t, (const big[]){scalar_big(&e)}, 1, &ring->n);
    mod_mul(right, right, w, &ring->n.n);
    if (!decided(big_equal(left, right))) {
        return false;
    }
    /* c1^S1 S^N (N+1)^T1 == c2^e V mod N^2. We hold the key, so in place of powers modulo N^2 compare both sides modulo N and after
     * decryption: a ciphertext is determined by the two, since r -> r^N is a bijection modulo N. Of c1 the plaintext is known. */
    crt_exp_product(left, (const big[]){c1, s}, (const big[]){s1, n}, 2, &key->n);
    crt_exp_product_var(right, &c2, (const big[]){scalar_big(&e)}, 1, &key->n);
    BIG(v_mod_n, N_BITS);
    mod_reduce(v_mod_n, v, &key->n.n);
    mod_mul(right, right, v_mod_n, &key->n.n);
    if (!decided(big_equal(left, right))) {
        return false;
    }
    /* m1 S1 + T1 == e m2 + Dec(V) mod N */
    BIG(plain, N_BITS + Q_BITS + 64);
    paillier_decrypt(m2, c2, key);
    paillier_decrypt(v_mod_n, v, key);
    (void)big_mul_add(plain, scalar_big(&e), m2, v_mod_n);
    mod_reduce(right, plain, &key->n.n);
    (void)big_mul_add(plain, scalar_big(m1), s1, t1);
    mod_reduce(left, plain, &key->n.n);
    return decided(big_equal(left, right));
}

#endif
