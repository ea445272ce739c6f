#ifndef TSS_GG18_PAILLIER_IMPL_H
#define TSS_GG18_PAILLIER_IMPL_H

#include "../secret.h"
#include "paillier.h"

INTERNAL void paillier_public_init(paillier_public *key, big n) {
    BIG(nn, NN_BITS);
    big_mul(nn, n, n);
    modulus_init(&key->n, n);
    modulus_init(&key->nn, nn);
}

/* L_p((N+1)^(p-1) mod p^2) = (p-1) q = -q mod p; its inverse. */
static uint64_t paillier_decryption_factor(big r, const modulus *p, big q) {
    BIG(minus_q, P_BITS);
    mod_reduce(minus_q, q, p);
    mod_negate(minus_q, minus_q, p);
    return big_inverse_odd(r, minus_q, modulus_value(p));
}

INTERNAL bool paillier_private_init(paillier_private *key, big p, big q) {
    BIG(nn, NN_BITS);
    const uint64_t coprime = crt_init(&key->n, p, q);
    DECLASSIFY(&key->n.n, sizeof(key->n.n)); /* N is published */
    big_mul(nn, modulus_value(&key->n.n), modulus_value(&key->n.n));
    modulus_init(&key->nn, nn);
    return decided(
        coprime & paillier_decryption_factor(BIG_OF(key->lp), &key->n.p, q)
        & paillier_decryption_factor(BIG_OF(key->lq), &key->n.q, p));
}

INTERNAL void paillier_generator_power(big r, big m, big n) {
    uint64_t low_d[N_LIMBS] = {0};
    const big low = BIG_OF(low_d);
    BIG(one, 64);
    big_set(low, m);
    big_set_u64(one, 1);
    big_mul(r, low, n);
    (void)big_add(r, r, one); /* mN + 1 <= (N-1)N + 1 < N^2 */
}

INTERNAL void paillier_encrypt_own(big c, big m, big r, const paillier_private *key) {
    BIG(generator_power, NN_BITS);
    paillier_generator_power(generator_power, m, modulus_value(&key->n.n));
    crt_nth_power(c, r, &key->n);
    mod_mul(c, c, generator_power, &key->nn);
}

INTERNAL void paillier_affine(big c, big base, big x, big y, big r, const paillier_public *key) {
    BIG(generator_power, NN_BITS);
    BIG(wide_r, NN_BITS);
    big_set(wide_r, r);
    paillier_generator_power(generator_power, y, modulus_value(&key->n));
    mod_exp_product(c, (const big[]){base, wide_r}, (const big[]){x, modulus_value(&key->n)}, 2, &key->nn);
    mod_mul(c, c, generator_power, &key->nn);
}

/* r = L_p(c^(p-1) mod p^2) l mod p, with L_p(u) = (u-1)/p. */
static void paillier_decrypt_half(big r, big c, const modulus *p, const modulus *pp, big l) {
    BIG(u, N_BITS);
    BIG(exponent, P_BITS);
    BIG(one, 64);
    big_set_u64(one, 1);
    (void)big_sub(exponent, modulus_value(p), one);
    mod_reduce(u, c, pp);
    mod_exp(u, u, exponent, pp);
    (void)big_sub(u, u, one);
    big_divide_exact(r, u, modulus_value(p));
    mod_mul(r, r, l, p);
}

INTERNAL void paillier_decrypt(big m, big c, const paillier_private *key) {
    BIG(mp, P_BITS);
    BIG(mq, P_BITS);
    paillier_decrypt_half(mp, c, &key->n.p, &key->n.pp, BIG_OF(key->lp));
    paillier_decrypt_half(mq, c, &key->n.q, &key->n.qq, BIG_OF(key->lq));
    crt_combine(m, mp, mq, &key->n);
}

INTERNAL bool paillier_is_ciphertext_var(big c, big n, big nn) {
    return big_less(c, nn) == 1 && big_is_zero(c) == 0 && big_coprime_var(c, n);
}

#endif
