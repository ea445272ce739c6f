#ifndef TSS_GG18_MESSAGES_H
#define TSS_GG18_MESSAGES_H

#include "../bigint.h"
#include "../curve.h"
#include "../party.h"
#include "../wire.h"

/* The bytes of tss-lib: a google.protobuf.Any whose type URL names the message and whose value holds its fields, each a byte
 * string or a list of byte strings.
 *
 * A message decodes into `parts`: its fields' elements one behind the other, in the order of its table. The enums below are
 * indices into parts. */

enum {
    GG18_ELEMENT_MAX = 1024, /* bytes of one integer; Go tolerates padding, so range checks are made on values */

    DLN_ITERATIONS = 128,
    DLN_PARTS = 2 * (1 + DLN_ITERATIONS), /* [128, alpha.., 128, t..] */
    MOD_ITERATIONS = 80,
    MOD_PARTS = 2 * MOD_ITERATIONS + 3,
    FAC_PARTS = 11,
    PAILLIER_ITERATIONS = 13,
    RANGE_ALICE_PARTS = 6,
    BOB_PARTS = 10,
    BOB_WC_PARTS = 12,

    /* KGRound1Message */
    COMMIT_COMMITMENT = 0,
    COMMIT_PAILLIER_N,
    COMMIT_N_TILDE,
    COMMIT_H1,
    COMMIT_H2,
    COMMIT_DLN_1,
    COMMIT_DLN_2 = COMMIT_DLN_1 + DLN_PARTS,
    COMMIT_PARTS = COMMIT_DLN_2 + DLN_PARTS,

    /* KGRound2Message1 */
    DEAL_SHARE = 0,
    DEAL_FAC_PROOF,
    DEAL_PARTS = DEAL_FAC_PROOF + FAC_PARTS,

    /* KGRound2Message2: the opening is as long as the threshold says, and stands last here */
    REVEAL_MOD_PROOF = 0,
    REVEAL_OPENING = REVEAL_MOD_PROOF + MOD_PARTS,
    REVEAL_PARTS_MAX = REVEAL_OPENING + 1 + 2 * (int)TSS_PARTIES_MAX,

    /* SignRound1Message1 */
    ASK_C = 0,
    ASK_RANGE_PROOF,
    ASK_PARTS = ASK_RANGE_PROOF + RANGE_ALICE_PARTS,

    /* SignRound2Message */
    ANSWER_C1 = 0,
    ANSWER_C2,
    ANSWER_BOB,
    ANSWER_BOB_WC = ANSWER_BOB + BOB_PARTS,
    ANSWER_PARTS = ANSWER_BOB_WC + BOB_WC_PARTS,

    /* SignRound4Message */
    GAMMA_OPENING = 0,
    GAMMA_SCHNORR = 3,
    GAMMA_PARTS = GAMMA_SCHNORR + 3,

    /* SignRound6Message */
    VA_OPENING = 0,
    VA_SCHNORR = 5,
    VA_V_SCHNORR = VA_SCHNORR + 3,
    VA_PARTS = VA_V_SCHNORR + 4,

    /* SignRound8Message */
    UT_OPENING = 0,
    UT_PARTS = 5,
};

typedef struct gg18_field {
    uint8_t number;  /* in the protobuf message, 1..15 */
    bool repeated;
    uint16_t count; /* elements; GG18_OPENING for the one list that the threshold sizes */
} gg18_field;

enum { GG18_OPENING = 0, GG18_FIELDS_MAX = 8 };

/* fields in the order of parts; a field's number of 0 ends the table */
typedef struct gg18_message {
    const char *name; /* behind "binance.tsslib.ecdsa." */
    uint16_t round;
    tss_class class_;
    uint32_t len_max; /* bytes: about twice what an honest party sends */
    gg18_field fields[GG18_FIELDS_MAX];
} gg18_message;

/** The index of the message's type in the table, and its parts, which point into bytes.
 *
 *  Returns: NULL, or what is wrong, as the detail of a fault. Allocates nothing.
 *  In: opening  1 + 2t: how many elements a GG18_OPENING list has
 *      parts    room for all parts of the largest message of the table, or NULL: check only */
INTERNAL const char *gg18_decode(
    size_t *type, span *parts, const gg18_message *table, size_t table_len, size_t opening, span bytes);

/** Encode parts as a message of the given type. w may be a measuring one. Empty parts are a caller's error: tss-lib refuses
 *  them, so a zero among the values must be drawn again before it gets here. */
INTERNAL void gg18_encode(writer *w, const gg18_message *type, size_t opening, const span *parts);

/* A message in the making: its parts and room for their bytes, in the arena. Everything put in is about to be published. */
typedef struct draft {
    bool ok; /* false: a value was zero, which tss-lib cannot carry and chance does not make */
    size_t used;
    uint8_t *bytes;
    span parts[];
} draft;

/** NULL: the arena is full. */
INTERNAL MUST_USE draft *draft_new(size_t parts, size_t bytes);
INTERNAL void draft_free(draft *d);
INTERNAL void draft_bytes(draft *d, size_t part, span bytes);
INTERNAL void draft_integer(draft *d, size_t part, big value);
INTERNAL void draft_scalar(draft *d, size_t part, const scalar *value);
INTERNAL void draft_point(draft *d, size_t part, const point *value); /* parts x, y */

/** Encode and queue. False: party_fail has been called. */
INTERNAL MUST_USE bool draft_send(
    const draft *d, tss_party *party, const gg18_message *table, size_t type, size_t to, size_t opening);

/* ---- Reading parts ---- */

/** r = the part, if it is < bound. */
INTERNAL MUST_USE bool part_below(big r, span part, big bound);

/** r = the part, if it is in (0, m) and coprime to m. */
INTERNAL MUST_USE bool part_unit(big r, span part, big m);

/** The part, if it is in (0, q). */
INTERNAL MUST_USE bool part_scalar(scalar *r, span part);

/** The point of two parts: canonical coordinates, on the curve. */
INTERNAL MUST_USE bool part_point(point *r, const span *parts);

#endif
