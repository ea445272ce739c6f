#ifndef TSS_GG18_PROOFS_H
#define TSS_GG18_PROOFS_H

#include "messages.h"
#include "paillier.h"
#include "ring.h"
#include "session.h"

/* The zero-knowledge proofs of GG18 (Gennaro, Goldfeder: Fast Multiparty Threshold ECDSA with Fast Trustless Setup, 2018) and the two
 * of CGGMP21 (Canetti et al.: UC Non-Interactive, Proactive, Threshold ECDSA with Identifiable Aborts) that tss-lib took over.
 *
 * Each proof is a run of parts of a message, in tss-lib's order. A prover writes them into a draft from `part` on; a verifier
 * gets them as received and checks every range itself: it may be given any bytes. The hash inputs come from one function for both.
 *
 * Where tss-lib checks less, the stricter rule here refuses no honest prover but for a negligible chance.
 *
 * N, N~: Paillier modulus and ring of 2048 bits. q: order of the curve, 256 bits. */

/* ---- dln: h2 is a power of h1 modulo N~ (GG18 4.?, a Schnorr proof with 128 one-bit challenges) ---- */

/** h2 = h1^alpha, or with `inverse` h1 = h2^(alpha^-1): both directions show that the two generate the same group. */
INTERNAL MUST_USE bool dln_prove(
    draft *d, size_t part, const gg18_session *session, const gg18_public *own, const ring_private *ring, bool inverse);
INTERNAL MUST_USE bool dln_verify(
    const span *parts, const gg18_session *session, const gg18_public *theirs, const modulus *n_tilde, bool inverse);

/* ---- mod: N is a Paillier-Blum modulus (CGGMP21 Fig. 16), 80 iterations ---- */

INTERNAL MUST_USE bool mod_prove(draft *d, size_t part, gg18_tag tag, const paillier_private *key);
INTERNAL MUST_USE bool mod_verify(const span *parts, gg18_tag tag, const modulus *n);

/* ---- fac: N has no small factor (CGGMP21 Fig. 28), in the verifier's ring ---- */

enum { FAC_H1_BITS = 2816, FAC_H2_BITS = 4928 }; /* exponents of the prover's commitments */

INTERNAL MUST_USE bool fac_prove(
    draft *d, size_t part, gg18_tag tag, const gg18_private *own, const gg18_public *own_public, const ring_public *ring,
    const gg18_public *theirs);
INTERNAL MUST_USE bool fac_verify(
    const span *parts, gg18_tag tag, const gg18_public *theirs, const ring_private *ring, const gg18_public *own);

/* ---- Paillier key: gcd(N, phi(N)) = 1 (GG18 6, Goldberg et al.), 13 iterations ---- */

INTERNAL MUST_USE bool paillier_prove(
    draft *d, size_t part, uint32_t key_of_prover, const point *Y, const paillier_private *key);
INTERNAL MUST_USE bool paillier_verify(const span *parts, uint32_t key_of_prover, const point *Y, const modulus *n);

/* ---- Schnorr: knowledge of x in X = x G, and of s, l in V = s R + l G ---- */

INTERNAL MUST_USE bool schnorr_prove(draft *d, size_t part, gg18_tag tag, const scalar *x, const point *X);
INTERNAL MUST_USE bool schnorr_verify(const span *parts, gg18_tag tag, const point *X);
INTERNAL MUST_USE bool v_schnorr_prove(
    draft *d, size_t part, gg18_tag tag, const scalar *s, const scalar *l, const point *V, const point *R);
INTERNAL MUST_USE bool v_schnorr_verify(const span *parts, gg18_tag tag, const point *V, const point *R);

/* ---- Alice's range proof: c = Enc_N(m; r) and m is small (GG18 A.1), in Bob's ring ---- */

enum { MTA_H1_BITS = 1792, MTA_H2_BITS = 2816 };

/** tag: the context of the receiver; v2 ignores it. */
INTERNAL MUST_USE bool range_prove(
    draft *d, size_t part, const gg18_session *session, gg18_tag tag, const scalar *m, big r, big c,
    const paillier_private *key, const ring_public *ring, const gg18_public *theirs);
INTERNAL MUST_USE bool range_verify(
    const span *parts, const gg18_session *session, gg18_tag tag, big c, const paillier_public *key,
    const ring_private *ring, const gg18_public *own);

/* ---- Bob's proof: c2 = c1^x Enc_N(y; r) with x and y small, and X = x G where X is given (GG18 A.2, A.3), in Alice's ring ---- */

INTERNAL MUST_USE bool bob_prove(
    draft *d, size_t part, const gg18_session *session, gg18_tag tag, big c1, big c2, const scalar *x, const point *X, big y,
    big r, const paillier_public *key, const ring_public *ring, const gg18_public *theirs);

/** m2 = Dec(c2), which the check needs; meaningless when it fails.
 *  In: m1  Dec(c1): c1 is our own encryption
 *      c2  a ciphertext */
INTERNAL MUST_USE bool bob_verify(
    big m2, const span *parts, const gg18_session *session, gg18_tag tag, big c1, const scalar *m1, big c2, const point *X,
    const paillier_private *key, const ring_private *ring, const gg18_public *own);

#endif
