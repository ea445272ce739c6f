#ifndef TSS_GG18_PAILLIER_H
#define TSS_GG18_PAILLIER_H

#include "../bigint.h"
#include "session.h"

/* Paillier's cryptosystem with generator N + 1: Enc(m; r) = (N+1)^m r^N mod N^2, and (N+1)^m = 1 + mN. */

typedef struct paillier_public {
    modulus n, nn; /* N, N^2 */
} paillier_public;

/* SECRET: in the arena, or on the secret stack. */
typedef struct paillier_private {
    crt n;
    modulus nn;
    uint64_t lp[P_LIMBS], lq[P_LIMBS]; /* L_p((N+1)^(p-1) mod p^2)^-1 mod p, and with q */
} paillier_private;

INTERNAL void paillier_public_init(paillier_public *key, big n);

/** p, q: two different safe primes of P_BITS. False: they are not coprime. */
INTERNAL MUST_USE bool paillier_private_init(paillier_private *key, big p, big q);

/** r = (N+1)^m mod N^2, for m < N of any width. */
INTERNAL void paillier_generator_power(big r, big m, big n);

/** c = Enc(m; r) under our own key. m < N. */
INTERNAL void paillier_encrypt_own(big c, big m, big r, const paillier_private *key);

/** c = base^x (N+1)^y r^N mod N^2 under another's key: x y and r secret. Bob's answer, and the first move of his proof. */
INTERNAL void paillier_affine(big c, big base, big x, big y, big r, const paillier_public *key);

/** m = Dec(c), for c < N^2 a unit. */
INTERNAL void paillier_decrypt(big m, big c, const paillier_private *key);

/** Is c in (0, N^2) and coprime to N? Made before c is used for anything: what is not a unit gives factors away. */
INTERNAL bool paillier_is_ciphertext_var(big c, big n, big nn);

#endif
