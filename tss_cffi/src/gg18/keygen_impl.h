#ifndef TSS_GG18_KEYGEN_IMPL_H
#define TSS_GG18_KEYGEN_IMPL_H

#include <string.h>

#include "../random.h"
#include "../vss.h"
#include "keygen.h"
#include "messages.h"
#include "proofs.h"
#include "share.h"

/* GG18 keygen, as tss-lib runs it. n parties, all in every round.
 *
 *   round  message            class      carries
 *   1      KGRound1Message    broadcast  commitment to the polynomial's points; N; N~, h1, h2 with two dln proofs
 *   2      KGRound2Message1   direct     the receiver's share of our polynomial; fac proof in its ring
 *   2      KGRound2Message2   broadcast  the opening; mod proof
 *   3      KGRound3Message    broadcast  Paillier key proof, bound to the finished public key
 *   4      -                             verifies those; the share */

enum { KEYGEN_COMMIT = 0, KEYGEN_DEAL, KEYGEN_REVEAL, KEYGEN_PROVE, KEYGEN_TYPES };

static const gg18_message keygen_messages[KEYGEN_TYPES] = {
    [KEYGEN_COMMIT] = {"keygen.KGRound1Message", 1, TSS_CLASS_BROADCAST, 256 * 1024,
        {{1, false, 1}, {2, false, 1}, {3, false, 1}, {4, false, 1}, {5, false, 1}, {6, true, DLN_PARTS}, {7, true, DLN_PARTS}}},
    [KEYGEN_DEAL] = {"keygen.KGRound2Message1", 2, TSS_CLASS_DIRECT, 8 * 1024, {{1, false, 1}, {2, true, FAC_PARTS}}},
    [KEYGEN_REVEAL] = {"keygen.KGRound2Message2", 2, TSS_CLASS_BROADCAST, 84 * 1024,
        {{2, true, MOD_PARTS}, {1, true, GG18_OPENING}}},
    [KEYGEN_PROVE] = {"keygen.KGRound3Message", 3, TSS_CLASS_BROADCAST, 8 * 1024, {{1, true, PAILLIER_ITERATIONS}}},
};

typedef struct keygen {
    gg18_session session;
    size_t threshold;
    /* ours */
    gg18_private secret;
    paillier_private key;
    ring_private ring;
    scalar shares[TSS_PARTIES_MAX]; /* f(seat_j), wiped when sent but for our own */
    uint8_t opening32[32];          /* r of the commitment */
    point V[TSS_PARTIES_MAX];       /* our polynomial's points; in round 3 the sum of all */
    scalar x;
    /* everybody's */
    gg18_public public_[TSS_PARTIES_MAX];
    uint8_t commitment32[TSS_PARTIES_MAX][32];
    point X[TSS_PARTIES_MAX];
} keygen;

static size_t keygen_opening(const keygen *k) { return 1 + 2 * k->threshold; }

static const char *keygen_recognise(size_t *type, const tss_party *party, span message) {
    return gg18_decode(type, NULL, keygen_messages, KEYGEN_TYPES, keygen_opening(party->state), message);
}

/* Parts of a message that recognise has passed. */
static void keygen_read(span *parts, const tss_party *party, size_t type, size_t sender) {
    size_t same;
    const char *problem = gg18_decode(
        &same, parts, keygen_messages, KEYGEN_TYPES, keygen_opening(party->state), party_read(party, type, sender));
    VERIFY_CHECK(problem == NULL && same == type);
    (void)problem;
}

/* HI(r, V_0.x, V_0.y, ...) over an opening as transmitted */
static bool opening_hash(uint8_t *digest32, const span *opening, size_t count) {
    transcript t;
    transcript_begin(&t, count);
    for (size_t i = 0; i < count; i++) {
        transcript_integer(&t, opening[i]);
    }
    return transcript_end(&t, digest32);
}

/* A commitment as received, as 32 bytes: an integer that needs more can be opened by nothing. */
static bool commitment_read(uint8_t *commitment32, span part) {
    BIG(value, 256);
    return big_from_bytes(value, part.at, part.len) && big_to_bytes(commitment32, 32, value);
}

static bool keygen_fail_internal(tss_party *party) {
    return party_fail(party, TSS_REASON_INTERNAL, 0, "no memory for a computation");
}

/* Our opening into the parts of a draft. */
static void keygen_draft_opening(draft *d, size_t part, const keygen *k) {
    draft_bytes(d, part, (span){k->opening32, 32});
    for (size_t c = 0; c < k->threshold; c++) {
        draft_point(d, part + 1 + 2 * c, &k->V[c]);
    }
}

/* ---- Round 1: commit ---- */

static bool keygen_commit(tss_party *party) {
    keygen *k = party->state;
    const gg18_public *own = &k->public_[party->own];
    scalar f[TSS_PARTIES_MAX];
    vss_deal(f, k->V, k->threshold);
    for (size_t j = 0; j < party->n; j++) {
        vss_evaluate(&k->shares[j], f, k->threshold, party->seats[j]);
    }
    random_bytes(k->opening32, sizeof(k->opening32));

    draft *opening = draft_new(REVEAL_PARTS_MAX, 32 * REVEAL_PARTS_MAX);
    draft *d = draft_new(COMMIT_PARTS, N_BYTES * COMMIT_PARTS);
    bool ok = opening != NULL && d != NULL;
    uint8_t digest32[32];
    if (ok) {
        keygen_draft_opening(opening, 0, k);
        ok = opening_hash(digest32, opening->parts, keygen_opening(k));
    }
    if (ok) {
        draft_bytes(d, COMMIT_COMMITMENT, (span){digest32, 32});
        draft_integer(d, COMMIT_PAILLIER_N, BIG_OF(own->n));
        draft_integer(d, COMMIT_N_TILDE, BIG_OF(own->n_tilde));
        draft_integer(d, COMMIT_H1, BIG_OF(own->h1));
        draft_integer(d, COMMIT_H2, BIG_OF(own->h2));
        ok = dln_prove(d, COMMIT_DLN_1, &k->session, own, &k->ring, false)
            && dln_prove(d, COMMIT_DLN_2, &k->session, own, &k->ring, true);
    }
    ok = ok ? draft_send(d, party, keygen_messages, KEYGEN_COMMIT, SIZE_MAX, keygen_opening(k)) : keygen_fail_internal(party);
    draft_free(opening);
    draft_free(d);
    return ok;
}

/* ---- Round 2: deal and reveal ---- */

static bool public_read(gg18_public *public_, const span *parts) {
    return big_from_bytes(BIG_OF(public_->n), parts[COMMIT_PAILLIER_N].at, parts[COMMIT_PAILLIER_N].len)
        && big_from_bytes(BIG_OF(public_->n_tilde), parts[COMMIT_N_TILDE].at, parts[COMMIT_N_TILDE].len)
        && big_from_bytes(BIG_OF(public_->h1), parts[COMMIT_H1].at, parts[COMMIT_H1].len)
        && big_from_bytes(BIG_OF(public_->h2), parts[COMMIT_H2].at, parts[COMMIT_H2].len);
}

/* The public parameters of all peers, checked in the order of the seats. */
static bool keygen_check_public(tss_party *party) {
    keygen *k = party->state;
    for (size_t j = 0; j < party->n; j++) {
        if (j == party->own) {
            continue;
        }
        span parts[COMMIT_PARTS];
        keygen_read(parts, party, KEYGEN_COMMIT, j);
        const char *problem = NULL;
        if (!public_read(&k->public_[j], parts)) {
            problem = "paillier_n, n_tilde, h1, h2: more than 2048 bits";
        }
        problem = problem != NULL ? problem : public_check_var(&k->public_[j]);
        /* Ours are fresh, so a peer that has the same copied them; among peers the later one is named. */
        problem = problem != NULL ? problem : public_compare(&k->public_[j], &k->public_[party->own]);
        for (size_t i = 0; problem == NULL && i < j; i++) {
            if (i != party->own) {
                problem = public_compare(&k->public_[j], &k->public_[i]);
            }
        }
        if (problem != NULL) {
            return party_fail(party, TSS_REASON_PARAMETERS, UINT32_C(1) << j, problem);
        }
        if (!commitment_read(k->commitment32[j], parts[COMMIT_COMMITMENT])) {
            return party_fail(party, TSS_REASON_MALFORMED, UINT32_C(1) << j, "commitment: more than 256 bits");
        }
    }
    return true;
}

/* All first proofs before all second ones; the first that fails is reported, as tss-lib does. */
static bool keygen_check_dln(tss_party *party) {
    keygen *k = party->state;
    for (size_t direction = 0; direction < 2; direction++) {
        for (size_t j = 0; j < party->n; j++) {
            if (j == party->own) {
                continue;
            }
            span parts[COMMIT_PARTS];
            modulus n_tilde;
            keygen_read(parts, party, KEYGEN_COMMIT, j);
            modulus_init(&n_tilde, BIG_OF(k->public_[j].n_tilde));
            if (!dln_verify(
                    parts + (direction == 0 ? COMMIT_DLN_1 : COMMIT_DLN_2), &k->session, &k->public_[j], &n_tilde,
                    direction == 1)) {
                return party_fail(
                    party, TSS_REASON_PROOF, UINT32_C(1) << j,
                    direction == 0 ? "dlnproof_1: does not verify" : "dlnproof_2: does not verify");
            }
        }
    }
    return true;
}

static bool keygen_deal(tss_party *party) {
    keygen *k = party->state;
    const gg18_public *own = &k->public_[party->own];
    const gg18_tag tag = session_context(&k->session, party->own);
    for (size_t j = 0; j < party->n; j++) {
        if (j == party->own) {
            continue;
        }
        ring_public ring = {0};
        draft *d = draft_new(DEAL_PARTS, 8 * 1024);
        bool ok = d != NULL && ring_public_init(&ring, &k->public_[j], FAC_H1_BITS, FAC_H2_BITS, 5);
        if (ok) {
            draft_scalar(d, DEAL_SHARE, &k->shares[j]);
            ok = fac_prove(d, DEAL_FAC_PROOF, tag, &k->secret, own, &ring, &k->public_[j]);
        }
        ok = ok ? draft_send(d, party, keygen_messages, KEYGEN_DEAL, j, keygen_opening(k)) : keygen_fail_internal(party);
        ring_public_free(&ring);
        draft_free(d);
        if (!ok) {
            return false;
        }
        scalar_wipe(&k->shares[j]);
    }
    return true;
}

static bool keygen_reveal(tss_party *party) {
    keygen *k = party->state;
    draft *d = draft_new(REVEAL_PARTS_MAX, N_BYTES * REVEAL_PARTS_MAX);
    bool ok = d != NULL;
    if (ok) {
        keygen_draft_opening(d, REVEAL_OPENING, k);
        ok = mod_prove(d, REVEAL_MOD_PROOF, session_context(&k->session, party->own), &k->key);
    }
    ok = ok ? draft_send(d, party, keygen_messages, KEYGEN_REVEAL, SIZE_MAX, keygen_opening(k)) : keygen_fail_internal(party);
    draft_free(d);
    return ok;
}

/* ---- Round 3: combine and prove ---- */

/* What peer j dealt: opening, points, mod proof, share, fac proof, in this order. NULL: all is well. */
static const char *keygen_check_deal(tss_reason *reason, point *V, scalar *share, const tss_party *party, size_t j) {
    const keygen *k = party->state;
    const size_t opening = keygen_opening(k);
    const gg18_tag tag = session_context(&k->session, j);
    span reveal[REVEAL_PARTS_MAX];
    span deal[DEAL_PARTS];
    uint8_t digest32[32];
    modulus n;
    keygen_read(reveal, party, KEYGEN_REVEAL, j);
    keygen_read(deal, party, KEYGEN_DEAL, j);
    modulus_init(&n, BIG_OF(k->public_[j].n));

    *reason = TSS_REASON_COMMITMENT;
    if (!opening_hash(digest32, reveal + REVEAL_OPENING, opening) || memcmp(digest32, k->commitment32[j], 32) != 0) {
        return "de_commitment: does not open the commitment";
    }
    *reason = TSS_REASON_POINT;
    for (size_t c = 0; c < k->threshold; c++) {
        if (!part_point(&V[c], reveal + REVEAL_OPENING + 1 + 2 * c)) {
            return "de_commitment: not a point of the curve";
        }
    }
    *reason = TSS_REASON_PROOF;
    if (!mod_verify(reveal + REVEAL_MOD_PROOF, tag, &n)) {
        return "modProof: does not verify";
    }
    *reason = TSS_REASON_SHARE;
    const bool reduced = part_scalar(share, deal[DEAL_SHARE]);
    CLASSIFY(share, sizeof(*share)); /* it came in the clear of a message, but is ours alone */
    if (!reduced || !vss_check(share, V, k->threshold, party->seats[party->own])) {
        return "share: does not fit the opened polynomial";
    }
    *reason = TSS_REASON_PROOF;
    if (!fac_verify(deal + DEAL_FAC_PROOF, tag, &k->public_[j], &k->ring, &k->public_[party->own])) {
        return "facProof: does not verify";
    }
    return NULL;
}

/* Our share x, the sum V of the polynomials, and from it everybody's X and the public key V[0]. */
static bool keygen_combine(tss_party *party) {
    keygen *k = party->state;
    uint32_t culprits = 0;
    uint32_t infinite = 0;
    tss_reason reason = TSS_REASON_NONE;
    const char *detail = NULL;
    k->x = k->shares[party->own];
    for (size_t j = 0; j < party->n; j++) {
        point V[TSS_PARTIES_MAX];
        scalar share;
        tss_reason this_reason;
        if (j == party->own) {
            continue;
        }
        const char *problem = keygen_check_deal(&this_reason, V, &share, party, j);
        if (problem != NULL) {
            culprits |= UINT32_C(1) << j;
            reason = detail == NULL ? this_reason : reason;
            detail = detail == NULL ? problem : detail;
            continue;
        }
        scalar_add(&k->x, &k->x, &share);
        for (size_t c = 0; c < k->threshold; c++) {
            point_add(&k->V[c], &k->V[c], &V[c]);
            if (point_is_infinity(&k->V[c])) {
                infinite |= UINT32_C(1) << j;
            }
        }
    }
    if (culprits != 0) {
        return party_fail(party, reason, culprits, detail);
    }
    if (infinite != 0) {
        return party_fail(party, TSS_REASON_POINT, infinite, "de_commitment: cancels the other polynomials");
    }
    for (size_t j = 0; j < party->n; j++) {
        vss_evaluate_point_var(&k->X[j], k->V, k->threshold, party->seats[j]);
        if (point_is_infinity(&k->X[j])) {
            /* tss-lib blames the one whose share is zero; that we did not do it, we know. */
            return party_fail(party, TSS_REASON_POINT, j == party->own ? 0 : UINT32_C(1) << j, "X_j is infinity");
        }
    }
    return true;
}

static bool keygen_prove(tss_party *party) {
    keygen *k = party->state;
    draft *d = draft_new(PAILLIER_ITERATIONS, N_BYTES * PAILLIER_ITERATIONS);
    bool ok = d != NULL && paillier_prove(d, 0, party->seats[party->own], &k->V[0], &k->key);
    ok = ok ? draft_send(d, party, keygen_messages, KEYGEN_PROVE, SIZE_MAX, keygen_opening(k)) : keygen_fail_internal(party);
    draft_free(d);
    return ok;
}

/* ---- Round 4: the share ---- */

static bool keygen_finish(tss_party *party) {
    keygen *k = party->state;
    uint32_t culprits = 0;
    for (size_t j = 0; j < party->n; j++) {
        span parts[PAILLIER_ITERATIONS];
        modulus n;
        if (j == party->own) {
            continue;
        }
        keygen_read(parts, party, KEYGEN_PROVE, j);
        modulus_init(&n, BIG_OF(k->public_[j].n));
        if (!paillier_verify(parts, party->seats[j], &k->V[0], &n)) {
            culprits |= UINT32_C(1) << j;
        }
    }
    if (culprits != 0) {
        return party_fail(party, TSS_REASON_PROOF, culprits, "paillier_proof: does not verify");
    }
    gg18_share *share = secret_alloc(sizeof(gg18_share));
    if (share != NULL) {
        share->v3 = k->session.v3;
        share->threshold = k->threshold;
        share->n = party->n;
        share->own = party->own;
        memcpy(share->seats, party->seats, sizeof(share->seats));
        share->x = k->x;
        share->secret = k->secret;
        share->Y = k->V[0];
        memcpy(share->X, k->X, sizeof(share->X));
        memcpy(share->public_, k->public_, sizeof(share->public_));
        /* What was made must load: a share that does not is worth nothing, and nobody would know until it is needed. */
        if (share_check(share) == NULL) {
            party->share = share_write(share);
        }
    }
    secret_free(share);
    return party->share != NULL ? true : keygen_fail_internal(party);
}

static bool keygen_compute(tss_party *party, uint16_t round) {
    switch (round) {
    case 1:
        return keygen_commit(party);
    case 2:
        return keygen_check_public(party) && keygen_check_dln(party) && keygen_deal(party) && keygen_reveal(party);
    case 3:
        return keygen_combine(party) && keygen_prove(party);
    default:
        return keygen_finish(party);
    }
}

static void keygen_end(tss_party *party) { secret_free(party->state); }

static const ceremony keygen_ceremony = {
    .rounds = 3,
    .types_len = KEYGEN_TYPES,
    .types = {{1, TSS_CLASS_BROADCAST}, {2, TSS_CLASS_DIRECT}, {2, TSS_CLASS_BROADCAST}, {3, TSS_CLASS_BROADCAST}},
    .recognise = keygen_recognise,
    .compute = keygen_compute,
    .end = keygen_end,
};

INTERNAL tss_status gg18_keygen_begin(
    tss_party **party, const char **field, tss_protocol protocol, uint32_t seat, const uint32_t *seats, size_t n,
    uint16_t threshold, tss_secret *prepared, const uint8_t *session32) {
    gg18_prepared own;
    *field = prepared_read(&own, (span){prepared->data, prepared->len});
    secret_wipe(prepared->data, prepared->len);
    if (*field != NULL) {
        return read_status(*field);
    }
    tss_party *opened = party_new(&keygen_ceremony, seat, seats, n);
    if (opened == NULL) {
        return TSS_MEMORY;
    }
    keygen *k = secret_alloc(sizeof(keygen));
    opened->state = k;
    bool ok = k != NULL;
    if (ok) {
        k->threshold = threshold;
        k->secret = own.own;
        k->public_[opened->own] = own.public_;
        ok = paillier_private_init(&k->key, BIG_OF(own.own.p), BIG_OF(own.own.q))
            && ring_private_init(&k->ring, &own.own, BIG_OF(own.public_.h1))
            && session_open(&k->session, protocol == TSS_GG18_V3, seats, n, NULL, NULL, session32)
            && party_begin(opened) == TSS_OK;
    }
    if (!ok) {
        party_free(opened);
        return TSS_MEMORY;
    }
    *party = opened;
    return TSS_OK;
}

#endif
