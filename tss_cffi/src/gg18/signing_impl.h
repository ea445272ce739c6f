#ifndef TSS_GG18_SIGNING_IMPL_H
#define TSS_GG18_SIGNING_IMPL_H

#include <string.h>

#include "../random.h"
#include "../vss.h"
#include "messages.h"
#include "proofs.h"
#include "signing.h"

/* GG18 signing, as tss-lib runs it, by n signers of a committee. Indices are positions among the signers.
 *
 *   round  message              class      carries
 *   1      SignRound1Message1   direct     Enc(k) under our key, range proof in the receiver's ring
 *   1      SignRound1Message2   broadcast  commitment to Gamma
 *   2      SignRound2Message    direct     MtA answers to k_j: with gamma, and with w and proof that it is the w of W
 *   3      SignRound3Message    broadcast  theta: our part of k gamma
 *   4      SignRound4Message    broadcast  Gamma opened, Schnorr proof of gamma
 *   5      SignRound5Message    broadcast  commitment to V = s R + l G and A = rho G
 *   6      SignRound6Message    broadcast  V, A opened, with proofs
 *   7      SignRound7Message    broadcast  commitment to U = rho V and T = l A
 *   8      SignRound8Message    broadcast  U, T opened
 *   9      SignRound9Message    broadcast  s: our part of the signature
 *   10     -                               the signature
 *
 * One-time values (k, gamma, rho, l, the randomness of ciphertexts) are drawn in a computation, live in this state in the arena until
 * they are spent, and are wiped there and then. */

enum {
    SIGN_ASK = 0,
    SIGN_COMMIT,
    SIGN_ANSWER,
    SIGN_THETA,
    SIGN_GAMMA,
    SIGN_COMMIT_VA,
    SIGN_VA,
    SIGN_COMMIT_UT,
    SIGN_UT,
    SIGN_S,
    SIGN_TYPES
};

static const gg18_message signing_messages[SIGN_TYPES] = {
    [SIGN_ASK] = {"signing.SignRound1Message1", 1, TSS_CLASS_DIRECT, 8 * 1024, {{1, false, 1}, {2, true, RANGE_ALICE_PARTS}}},
    [SIGN_COMMIT] = {"signing.SignRound1Message2", 1, TSS_CLASS_BROADCAST, 1024, {{1, false, 1}}},
    [SIGN_ANSWER] = {"signing.SignRound2Message", 2, TSS_CLASS_DIRECT, 16 * 1024,
        {{1, false, 1}, {2, false, 1}, {3, true, BOB_PARTS}, {4, true, BOB_WC_PARTS}}},
    [SIGN_THETA] = {"signing.SignRound3Message", 3, TSS_CLASS_BROADCAST, 1024, {{1, false, 1}}},
    [SIGN_GAMMA] = {"signing.SignRound4Message", 4, TSS_CLASS_BROADCAST, 1024,
        {{1, true, 3}, {2, false, 1}, {3, false, 1}, {4, false, 1}}},
    [SIGN_COMMIT_VA] = {"signing.SignRound5Message", 5, TSS_CLASS_BROADCAST, 1024, {{1, false, 1}}},
    [SIGN_VA] = {"signing.SignRound6Message", 6, TSS_CLASS_BROADCAST, 1024,
        {{1, true, 5}, {2, false, 1}, {3, false, 1}, {4, false, 1}, {5, false, 1}, {6, false, 1}, {7, false, 1}, {8, false, 1}}},
    [SIGN_COMMIT_UT] = {"signing.SignRound7Message", 7, TSS_CLASS_BROADCAST, 1024, {{1, false, 1}}},
    [SIGN_UT] = {"signing.SignRound8Message", 8, TSS_CLASS_BROADCAST, 1024, {{1, true, UT_PARTS}}},
    [SIGN_S] = {"signing.SignRound9Message", 9, TSS_CLASS_BROADCAST, 1024, {{1, false, 1}}},
};

/* What we hold of one other signer, and for it. Of ourselves only public_, W and commitment32 are filled. */
typedef struct signing_peer {
    gg18_public public_;
    point W;
    paillier_public key;
    ring_public ring;         /* tables until round 2 is over */
    uint64_t c[NN_LIMBS];     /* Enc(k) as sent to it */
    scalar beta, nu;          /* our parts of k_j gamma and of k_j w */
    uint8_t commitment32[32]; /* to Gamma, then to V and A, then to U and T */
} signing_peer;

typedef struct signing {
    gg18_session session;
    uint8_t digest32[32];
    scalar m;
    point Y;
    paillier_private key;
    ring_private ring;
    scalar w, k, gamma, sigma, theta, s, l, rho, r;
    uint8_t opening32[32]; /* of the commitment under way */
    point Gamma, R, V, A, U, T;
    signing_peer signer[];
} signing;

static const char *signing_recognise(size_t *type, const tss_party *party, span message) {
    (void)party;
    return gg18_decode(type, NULL, signing_messages, SIGN_TYPES, 0, message);
}

static void signing_read(span *parts, const tss_party *party, size_t type, size_t sender) {
    size_t same_type;
    const char *problem =
        gg18_decode(&same_type, parts, signing_messages, SIGN_TYPES, 0, party_read(party, type, sender));
    VERIFY_CHECK(problem == NULL && same_type == type);
    (void)problem;
}

static bool signing_fail_internal(tss_party *party) {
    return party_fail(party, TSS_REASON_INTERNAL, 0, "no memory for a computation");
}

/* Several peers may be at fault; the first one's reason stands for all. */
typedef struct signing_blame {
    uint32_t culprits;
    tss_reason reason;
    const char *detail;
} signing_blame;

static void blame(signing_blame *b, size_t peer, tss_reason reason, const char *detail) {
    if (b->culprits == 0) {
        b->reason = reason;
        b->detail = detail;
    }
    b->culprits |= UINT32_C(1) << peer;
}

/* A broadcast of one integer. */
static bool signing_send_one(tss_party *party, size_t type, span value) {
    draft *d = draft_new(1, 64);
    if (d == NULL) {
        return signing_fail_internal(party);
    }
    draft_bytes(d, 0, value);
    const bool ok = draft_send(d, party, signing_messages, type, SIZE_MAX, 0);
    draft_free(d);
    return ok;
}

/* The opening [r, points] of what was committed to last. */
static void signing_draft_opening(draft *d, const signing *s, const point *const *points, size_t count) {
    draft_bytes(d, 0, (span){s->opening32, 32});
    for (size_t i = 0; i < count; i++) {
        draft_point(d, 1 + 2 * i, points[i]);
    }
}

/* Draw r, commit to the points, send the commitment. */
static bool signing_commit(tss_party *party, size_t type, const point *const *points, size_t count) {
    signing *s = party->state;
    uint8_t digest32[32];
    random_bytes(s->opening32, sizeof(s->opening32));
    draft *d = draft_new(1 + 2 * count, 32 * (1 + 2 * count));
    bool ok = d != NULL;
    if (ok) {
        signing_draft_opening(d, s, points, count);
        ok = opening_hash(digest32, d->parts, 1 + 2 * count);
    }
    draft_free(d);
    return ok ? signing_send_one(party, type, (span){digest32, 32}) : signing_fail_internal(party);
}

/* Keep the commitments of a round; false: party_fail has been called. */
static bool signing_read_commitments(tss_party *party, size_t type) {
    signing *s = party->state;
    for (size_t j = 0; j < party->n; j++) {
        span part;
        if (j == party->own) {
            continue;
        }
        signing_read(&part, party, type, j);
        if (!commitment_read(s->signer[j].commitment32, part)) {
            return party_fail(party, TSS_REASON_MALFORMED, UINT32_C(1) << j, "commitment: more than 256 bits");
        }
    }
    return true;
}

/* Open peer j's commitment into count points; false: party_fail has been called. */
static bool signing_open(tss_party *party, size_t j, point *points, const span *opening, size_t count) {
    const signing *s = party->state;
    uint8_t digest32[32];
    if (!opening_hash(digest32, opening, 1 + 2 * count)
        || memcmp(digest32, s->signer[j].commitment32, sizeof(digest32)) != 0) {
        return party_fail(
            party, TSS_REASON_COMMITMENT, UINT32_C(1) << j, "de_commitment: does not open the commitment");
    }
    for (size_t i = 0; i < count; i++) {
        if (!part_point(&points[i], opening + 1 + 2 * i)) {
            return party_fail(party, TSS_REASON_POINT, UINT32_C(1) << j, "de_commitment: not a point of the curve");
        }
    }
    return true;
}

/* ---- Round 1: ask ---- */

static bool signing_ask(tss_party *party, size_t j) {
    signing *s = party->state;
    signing_peer *peer = &s->signer[j];
    const big c = BIG_OF(peer->c);
    BIG(r, N_BITS);
    /* Fresh randomness for each receiver: one ciphertext for all would let two of them compare answers. */
    random_unit(r, modulus_value(&s->key.n.n));
    paillier_encrypt_own(c, scalar_big(&s->k), r, &s->key);
    draft *d = draft_new(ASK_PARTS, 4096);
    bool ok = d != NULL && ring_public_init(&peer->ring, &peer->public_, MTA_H1_BITS, MTA_H2_BITS, 10);
    if (ok) {
        draft_integer(d, ASK_C, c);
        ok = range_prove(
            d, ASK_RANGE_PROOF, &s->session, session_context(&s->session, j), &s->k, r, c, &s->key, &peer->ring,
            &peer->public_);
    }
    ok = ok ? draft_send(d, party, signing_messages, SIGN_ASK, j, 0) : signing_fail_internal(party);
    draft_free(d);
    return ok;
}

static bool signing_round_1(tss_party *party) {
    signing *s = party->state;
    scalar_random(&s->k);
    scalar_random(&s->gamma);
    point_mul_base(&s->Gamma, &s->gamma);
    for (size_t j = 0; j < party->n; j++) {
        if (j != party->own && !signing_ask(party, j)) {
            return false;
        }
    }
    return signing_commit(party, SIGN_COMMIT, (const point *const[]){&s->Gamma}, 1);
}

/* ---- Round 2: answer ---- */

static void signing_check_ask(tss_party *party, size_t j, signing_blame *b) {
    signing *s = party->state;
    const signing_peer *peer = &s->signer[j];
    span parts[ASK_PARTS];
    BIG(c, NN_BITS);
    signing_read(parts, party, SIGN_ASK, j);
    if (!big_from_bytes(c, parts[ASK_C].at, parts[ASK_C].len)
        || !paillier_is_ciphertext_var(c, modulus_value(&peer->key.n), modulus_value(&peer->key.nn))) {
        blame(b, j, TSS_REASON_MALFORMED, "c: not a ciphertext");
    } else if (!range_verify(
                   parts + ASK_RANGE_PROOF, &s->session, session_context(&s->session, party->own), c, &peer->key, &s->ring,
                   &s->signer[party->own].public_)) {
        blame(b, j, TSS_REASON_PROOF, "range_proof_alice: does not verify");
    }
}

/* c_out = c^x Enc(y), our part of k_j x is -y; the proof goes to d. */
static bool signing_multiply(
    draft *d, size_t c_part, size_t proof_part, const tss_party *party, size_t j, big c, const scalar *x, const point *X,
    scalar *part_of_product) {
    const signing *s = party->state;
    const signing_peer *peer = &s->signer[j];
    BIG(bound, 5 * Q_BITS);
    BIG(y, 5 * Q_BITS);
    BIG(r, N_BITS);
    BIG(c_out, NN_BITS);
    order_power(bound, 5);
    random_below(y, bound);
    random_unit(r, modulus_value(&peer->key.n));
    paillier_affine(c_out, c, scalar_big(x), y, r, &peer->key);
    draft_integer(d, c_part, c_out);
    scalar_set_big(part_of_product, y);
    scalar_negate(part_of_product, part_of_product);
    return bob_prove(
        d, proof_part, &s->session, session_context(&s->session, party->own), c, c_out, x, X, y, r, &peer->key, &peer->ring,
        &peer->public_);
}

static bool signing_answer(tss_party *party, size_t j) {
    signing *s = party->state;
    signing_peer *peer = &s->signer[j];
    span parts[ASK_PARTS];
    BIG(c, NN_BITS);
    signing_read(parts, party, SIGN_ASK, j);
    draft *d = draft_new(ANSWER_PARTS, 16 * 1024);
    bool ok = d != NULL && big_from_bytes(c, parts[ASK_C].at, parts[ASK_C].len)
        && signing_multiply(d, ANSWER_C1, ANSWER_BOB, party, j, c, &s->gamma, NULL, &peer->beta)
        && signing_multiply(d, ANSWER_C2, ANSWER_BOB_WC, party, j, c, &s->w, &s->signer[party->own].W, &peer->nu);
    ok = ok ? draft_send(d, party, signing_messages, SIGN_ANSWER, j, 0) : signing_fail_internal(party);
    draft_free(d);
    return ok;
}

static bool signing_round_2(tss_party *party) {
    signing *s = party->state;
    signing_blame b = {0};
    for (size_t j = 0; j < party->n; j++) {
        if (j != party->own) {
            signing_check_ask(party, j, &b);
        }
    }
    if (b.culprits != 0) {
        return party_fail(party, b.reason, b.culprits, b.detail);
    }
    if (!signing_read_commitments(party, SIGN_COMMIT)) {
        return false;
    }
    for (size_t j = 0; j < party->n; j++) {
        if (j != party->own && !signing_answer(party, j)) {
            return false;
        }
    }
    for (size_t j = 0; j < party->n; j++) {
        ring_public_free(&s->signer[j].ring);
    }
    return true;
}

/* ---- Round 3: theta ---- */

/* r = the plaintext of an answer mod q: a number modulo N is read as the one between -N/2 and N/2. Bob's proof lets his y lie anywhere
 * in +-q^7 (GG18 appendix A.2, with the bound of tss-lib). Whether k x + y is below 0, or above any edge in that range, tells about k, so
 * nothing may depend on it: false where it is further from 0 than any answer whose proof verifies, 2 q^7 < N/2. */
static bool signing_plaintext(scalar *r, big plain, big n) {
    BIG(distance, N_BITS);
    BIG(bound, 7 * Q_BITS + 1);
    big_sub(distance, n, plain);
    const uint64_t negative = big_less(distance, plain);
    big_select(distance, distance, plain, negative);
    scalar opposite;
    scalar_set_big(r, distance);
    scalar_negate(&opposite, r);
    scalar_select(r, &opposite, r, negative);
    order_power(bound, 7);
    big_add(bound, bound, bound);
    return decided(big_less(distance, bound));
}

/* One answer to our question: add the decrypted part to *sum. */
static void signing_check_answer(
    const tss_party *party, size_t j, signing_blame *b, scalar *sum, span c_part, const span *proof, const point *X) {
    const signing *s = party->state;
    BIG(c, NN_BITS);
    BIG(plain, N_BITS);
    if (!big_from_bytes(c, c_part.at, c_part.len)
        || !paillier_is_ciphertext_var(c, modulus_value(&s->key.n.n), modulus_value(&s->key.nn))) {
        blame(b, j, TSS_REASON_MALFORMED, X == NULL ? "c1: not a ciphertext" : "c2: not a ciphertext");
        return;
    }
    if (!bob_verify(
            plain, proof, &s->session, session_context(&s->session, j), BIG_OF(s->signer[j].c), &s->k, c, X, &s->key, &s->ring,
            &s->signer[party->own].public_)) {
        blame(b, j, TSS_REASON_PROOF, X == NULL ? "proof_bob: does not verify" : "proof_bob_wc: does not verify");
        return;
    }
    scalar part;
    if (!signing_plaintext(&part, plain, modulus_value(&s->key.n.n))) {
        blame(b, j, TSS_REASON_DECRYPTION, X == NULL ? "c1: decrypts beyond 2 q^7" : "c2: decrypts beyond 2 q^7");
        return;
    }
    scalar_add(sum, sum, &part);
}

static bool signing_round_3(tss_party *party) {
    signing *s = party->state;
    signing_blame b = {0};
    scalar_mul(&s->theta, &s->k, &s->gamma);
    scalar_mul(&s->sigma, &s->k, &s->w);
    for (size_t j = 0; j < party->n; j++) {
        span parts[ANSWER_PARTS];
        if (j == party->own) {
            continue;
        }
        signing_peer *peer = &s->signer[j];
        signing_read(parts, party, SIGN_ANSWER, j);
        signing_check_answer(party, j, &b, &s->theta, parts[ANSWER_C1], parts + ANSWER_BOB, NULL);
        signing_check_answer(party, j, &b, &s->sigma, parts[ANSWER_C2], parts + ANSWER_BOB_WC, &peer->W);
        scalar_add(&s->theta, &s->theta, &peer->beta);
        scalar_add(&s->sigma, &s->sigma, &peer->nu);
        scalar_wipe(&peer->beta);
        scalar_wipe(&peer->nu);
    }
    if (b.culprits != 0) {
        return party_fail(party, b.reason, b.culprits, b.detail);
    }
    scalar_wipe(&s->w);
    uint8_t bytes32[32];
    DECLASSIFY(&s->theta, sizeof(s->theta)); /* published */
    scalar_bytes(bytes32, &s->theta);
    return signing_send_one(party, SIGN_THETA, (span){bytes32, 32});
}

/* ---- Round 4: Gamma ---- */

/* The one scalar of each peer's broadcast added to *sum; false: party_fail has been called. */
static bool signing_add_scalars(tss_party *party, size_t type, scalar *sum, const char *detail) {
    for (size_t j = 0; j < party->n; j++) {
        span part;
        scalar value;
        if (j == party->own) {
            continue;
        }
        signing_read(&part, party, type, j);
        if (!part_scalar(&value, part)) {
            return party_fail(party, TSS_REASON_MALFORMED, UINT32_C(1) << j, detail);
        }
        scalar_add(sum, sum, &value);
    }
    return true;
}

static bool signing_round_4(tss_party *party) {
    signing *s = party->state;
    if (!signing_add_scalars(party, SIGN_THETA, &s->theta, "theta: not in (0, q)")) {
        return false;
    }
    if (scalar_is_zero(&s->theta) == 1) {
        return party_fail(party, TSS_REASON_INCONSISTENT, 0, "theta: the sum is zero");
    }
    draft *d = draft_new(GAMMA_PARTS, 32 * GAMMA_PARTS);
    bool ok = d != NULL;
    if (ok) {
        signing_draft_opening(d, s, (const point *const[]){&s->Gamma}, 1);
        ok = schnorr_prove(d, GAMMA_SCHNORR, session_context(&s->session, party->own), &s->gamma, &s->Gamma);
    }
    ok = ok ? draft_send(d, party, signing_messages, SIGN_GAMMA, SIZE_MAX, 0) : signing_fail_internal(party);
    draft_free(d);
    if (ok) {
        scalar_wipe(&s->gamma);
    }
    return ok;
}

/* ---- Round 5: R, our s, and the commitment to V and A ---- */

static bool signing_round_5(tss_party *party) {
    signing *s = party->state;
    scalar theta_inverse;
    s->R = s->Gamma;
    for (size_t j = 0; j < party->n; j++) {
        span parts[GAMMA_PARTS];
        point Gamma;
        if (j == party->own) {
            continue;
        }
        signing_read(parts, party, SIGN_GAMMA, j);
        if (!signing_open(party, j, &Gamma, parts + GAMMA_OPENING, 1)) {
            return false;
        }
        if (!schnorr_verify(parts + GAMMA_SCHNORR, session_context(&s->session, j), &Gamma)) {
            return party_fail(party, TSS_REASON_PROOF, UINT32_C(1) << j, "proof of Gamma: does not verify");
        }
        point_add(&s->R, &s->R, &Gamma);
        if (point_is_infinity(&s->R)) {
            return party_fail(party, TSS_REASON_POINT, UINT32_C(1) << j, "Gamma: cancels the sum of the others");
        }
    }
    scalar_inverse(&theta_inverse, &s->theta);
    point_mul_var(&s->R, &s->R, &theta_inverse);
    BIG(x, Q_BITS);
    point_x(x, &s->R);
    scalar_set_big(&s->r, x);
    if (scalar_is_zero(&s->r) == 1) {
        return party_fail(party, TSS_REASON_INCONSISTENT, 0, "r is zero");
    }
    /* s_i = m k_i + r sigma_i. k is spent: two signatures under one k give the key away. */
    scalar term;
    scalar_mul(&s->s, &s->m, &s->k);
    scalar_mul(&term, &s->r, &s->sigma);
    scalar_add(&s->s, &s->s, &term);
    scalar_wipe(&s->k);
    scalar_wipe(&s->sigma);

    point base;
    scalar_random(&s->l);
    scalar_random(&s->rho);
    point_mul(&s->V, &s->R, &s->s);
    point_mul_base(&base, &s->l);
    point_add(&s->V, &s->V, &base);
    point_mul_base(&s->A, &s->rho);
    if (point_is_infinity(&s->V)) {
        return party_fail(party, TSS_REASON_INTERNAL, 0, "V is infinity");
    }
    return signing_commit(party, SIGN_COMMIT_VA, (const point *const[]){&s->V, &s->A}, 2);
}

/* ---- Round 6: V and A ---- */

static bool signing_round_6(tss_party *party) {
    signing *s = party->state;
    const gg18_tag tag = session_context(&s->session, party->own);
    if (!signing_read_commitments(party, SIGN_COMMIT_VA)) {
        return false;
    }
    draft *d = draft_new(VA_PARTS, 32 * VA_PARTS);
    bool ok = d != NULL;
    if (ok) {
        signing_draft_opening(d, s, (const point *const[]){&s->V, &s->A}, 2);
        ok = schnorr_prove(d, VA_SCHNORR, tag, &s->rho, &s->A)
            && v_schnorr_prove(d, VA_V_SCHNORR, tag, &s->s, &s->l, &s->V, &s->R);
    }
    ok = ok ? draft_send(d, party, signing_messages, SIGN_VA, SIZE_MAX, 0) : signing_fail_internal(party);
    draft_free(d);
    return ok;
}

/* ---- Round 7: the commitment to U and T ---- */

static bool signing_round_7(tss_party *party) {
    signing *s = party->state;
    /* V = sum V_j - m G - r Y, A = sum A_j */
    point V = s->V;
    point A = s->A;
    for (size_t j = 0; j < party->n; j++) {
        span parts[VA_PARTS];
        point opened[2];
        const gg18_tag tag = session_context(&s->session, j);
        if (j == party->own) {
            continue;
        }
        signing_read(parts, party, SIGN_VA, j);
        if (!signing_open(party, j, opened, parts + VA_OPENING, 2)) {
            return false;
        }
        if (!schnorr_verify(parts + VA_SCHNORR, tag, &opened[1])) {
            return party_fail(party, TSS_REASON_PROOF, UINT32_C(1) << j, "proof of A: does not verify");
        }
        if (!v_schnorr_verify(parts + VA_V_SCHNORR, tag, &opened[0], &s->R)) {
            return party_fail(party, TSS_REASON_PROOF, UINT32_C(1) << j, "proof of V: does not verify");
        }
        point_add(&V, &V, &opened[0]);
        point_add(&A, &A, &opened[1]);
    }
    scalar minus;
    point term;
    scalar_negate(&minus, &s->m);
    point_add_base_var(&V, &V, &minus);
    scalar_negate(&minus, &s->r);
    point_mul_var(&term, &s->Y, &minus);
    point_add(&V, &V, &term);
    if (point_is_infinity(&V) || point_is_infinity(&A)) {
        return party_fail(party, TSS_REASON_INCONSISTENT, 0, "V or A: the sum is infinity");
    }
    point_mul(&s->U, &V, &s->rho);
    point_mul(&s->T, &A, &s->l);
    scalar_wipe(&s->rho);
    scalar_wipe(&s->l);
    return signing_commit(party, SIGN_COMMIT_UT, (const point *const[]){&s->U, &s->T}, 2);
}

/* ---- Round 8: U and T ---- */

static bool signing_round_8(tss_party *party) {
    signing *s = party->state;
    if (!signing_read_commitments(party, SIGN_COMMIT_UT)) {
        return false;
    }
    draft *d = draft_new(UT_PARTS, 32 * UT_PARTS);
    if (d == NULL) {
        return signing_fail_internal(party);
    }
    signing_draft_opening(d, s, (const point *const[]){&s->U, &s->T}, 2);
    const bool ok = draft_send(d, party, signing_messages, SIGN_UT, SIZE_MAX, 0);
    draft_free(d);
    return ok;
}

/* ---- Round 9: s ---- */

static bool signing_round_9(tss_party *party) {
    signing *s = party->state;
    for (size_t j = 0; j < party->n; j++) {
        span parts[UT_PARTS];
        point opened[2];
        if (j == party->own) {
            continue;
        }
        signing_read(parts, party, SIGN_UT, j);
        if (!signing_open(party, j, opened, parts + UT_OPENING, 2)) {
            return false;
        }
        point_add(&s->U, &s->U, &opened[0]);
        point_add(&s->T, &s->T, &opened[1]);
    }
    /* Only now is it known that the s_j will make a signature; before, ours must not leave. Two sums at infinity are equal and tell
     * nothing: who knew how to cancel ours could cancel both. */
    if (point_is_infinity(&s->U) || !point_equal(&s->U, &s->T)) {
        return party_fail(party, TSS_REASON_INCONSISTENT, 0, "the sums of U and T differ");
    }
    uint8_t bytes32[32];
    DECLASSIFY(&s->s, sizeof(s->s)); /* published */
    scalar_bytes(bytes32, &s->s);
    return signing_send_one(party, SIGN_S, (span){bytes32, 32});
}

/* ---- The signature ---- */

static bool signing_finish(tss_party *party) {
    signing *s = party->state;
    uint8_t signature64[64];
    BIG(x, Q_BITS);
    BIG(y, Q_BITS);
    if (!signing_add_scalars(party, SIGN_S, &s->s, "s: not in (0, q)")) {
        return false;
    }
    point_x(x, &s->R);
    point_y(y, &s->R);
    uint8_t recovery_id = (uint8_t)(2 * (1 - big_less(x, curve_order())) + big_is_odd(y));
    if (scalar_is_high(&s->s) == 1) {
        scalar_negate(&s->s, &s->s);
        recovery_id ^= 1;
    }
    scalar_bytes(signature64, &s->r);
    scalar_bytes(signature64 + 32, &s->s);
    point recovered;
    if (!ecdsa_verify(signature64, s->digest32, &s->Y) || !ecdsa_recover(&recovered, signature64, recovery_id, s->digest32)
        || !point_equal(&recovered, &s->Y)) {
        return party_fail(party, TSS_REASON_SIGNATURE, 0, "the signature does not verify");
    }
    memcpy(party->signature64, signature64, sizeof(signature64));
    party->recovery_id = recovery_id;
    party->has_signature = true;
    return true;
}

static bool signing_compute(tss_party *party, uint16_t round) {
    static bool (*const rounds[])(tss_party *) = {
        signing_round_1, signing_round_2, signing_round_3, signing_round_4, signing_round_5,
        signing_round_6, signing_round_7, signing_round_8, signing_round_9, signing_finish,
    };
    return rounds[round - 1](party);
}

static void signing_end(tss_party *party) {
    signing *s = party->state;
    for (size_t j = 0; j < party->n; j++) {
        ring_public_free(&s->signer[j].ring);
    }
    secret_free(s);
}

static const ceremony signing_ceremony = {
    .rounds = 9,
    .types_len = SIGN_TYPES,
    .types = {{1, TSS_CLASS_DIRECT}, {1, TSS_CLASS_BROADCAST}, {2, TSS_CLASS_DIRECT}, {3, TSS_CLASS_BROADCAST},
        {4, TSS_CLASS_BROADCAST}, {5, TSS_CLASS_BROADCAST}, {6, TSS_CLASS_BROADCAST}, {7, TSS_CLASS_BROADCAST},
        {8, TSS_CLASS_BROADCAST}, {9, TSS_CLASS_BROADCAST}},
    .recognise = signing_recognise,
    .compute = signing_compute,
    .end = signing_end,
};

/* Indices of the signers in the share's committee; the signers are among its seats. */
static void signing_members(size_t *member, const gg18_share *share, const uint32_t *signers, size_t n) {
    for (size_t i = 0, j = 0; i < n; i++) {
        while (share->seats[j] != signers[i]) {
            j++;
        }
        member[i] = j;
    }
}

static bool signing_prepare(
    tss_party *party, const gg18_share *share, const uint32_t *signers, size_t n, const uint8_t *digest32,
    const uint8_t *session32) {
    signing *s = party->state;
    size_t member[TSS_PARTIES_MAX];
    const gg18_public *public_[TSS_PARTIES_MAX];
    point X[TSS_PARTIES_MAX];
    uint8_t m32[32];
    BIG(m, Q_BITS);
    signing_members(member, share, signers, n);
    memcpy(s->digest32, digest32, 32);
    if (!big_from_bytes(m, digest32, 32)) {
        return false;
    }
    scalar_set_big(&s->m, m);
    s->Y = share->Y;
    for (size_t i = 0; i < n; i++) {
        signing_peer *signer = &s->signer[i];
        scalar lambda;
        signer->public_ = share->public_[member[i]];
        X[i] = share->X[member[i]];
        public_[i] = &signer->public_;
        vss_lagrange(&lambda, signers, n, i, 0);
        point_mul_var(&signer->W, &X[i], &lambda);
        if (i == party->own) {
            scalar_mul(&s->w, &lambda, &share->x);
        } else {
            paillier_public_init(&signer->key, BIG_OF(signer->public_.n));
        }
    }
    /* Where v3 is given no nonce, the message takes its place. */
    scalar_bytes(m32, &s->m);
    const uint8_t *nonce32 = session32 != NULL || !share->v3 ? session32 : m32;
    return paillier_private_init(&s->key, BIG_OF(share->secret.p), BIG_OF(share->secret.q))
        && ring_private_init(&s->ring, &share->secret, BIG_OF(share->public_[share->own].h1))
        && session_open(&s->session, share->v3, signers, n, X, public_, nonce32);
}

INTERNAL tss_status gg18_signing_begin(
    tss_party **party, const gg18_share *share, const uint32_t *signers, size_t n, const uint8_t *digest32,
    const uint8_t *session32) {
    tss_party *opened = party_new(&signing_ceremony, share->seats[share->own], signers, n);
    if (opened == NULL) {
        return TSS_MEMORY;
    }
    opened->state = secret_alloc(sizeof(signing) + n * sizeof(signing_peer));
    if (opened->state == NULL || !signing_prepare(opened, share, signers, n, digest32, session32)
        || party_begin(opened) != TSS_OK) {
        party_free(opened);
        return TSS_MEMORY;
    }
    *party = opened;
    return TSS_OK;
}

#endif
