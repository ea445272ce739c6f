#ifndef TSS_GG18_SESSION_H
#define TSS_GG18_SESSION_H

#include <stdbool.h>

#include "../bigint.h"
#include "../curve.h"
#include "../wire.h"
#include "transcript.h"

/* Sizes of the numbers of GG18 as tss-lib fixes them, what a party publishes, and the session that its proofs are bound to. */

enum {
    P_BITS = 1024, /* the safe primes */
    N_BITS = 2048, /* Paillier's N, the ring's N~ */
    NN_BITS = 4096,
    Q_BITS = 256,  /* the order of the curve */
    P_LIMBS = P_BITS / 64,
    N_LIMBS = N_BITS / 64,
    NN_LIMBS = NN_BITS / 64,
    Q_LIMBS = Q_BITS / 64,
    P_BYTES = P_BITS / 8,
    N_BYTES = N_BITS / 8,
    Q_BYTES = Q_BITS / 8,
};

/* What one party publishes once and for all: N of its Paillier key, and its ring-Pedersen parameters N~, h1, h2. */
typedef struct gg18_public {
    uint64_t n[N_LIMBS];
    uint64_t n_tilde[N_LIMBS];
    uint64_t h1[N_LIMBS];
    uint64_t h2[N_LIMBS];
} gg18_public;

/* What it keeps: the safe primes of both moduli, and alpha < p'q' with h2 = h1^alpha. */
typedef struct gg18_private {
    uint64_t p[P_LIMBS], q[P_LIMBS];
    uint64_t ring_p[P_LIMBS], ring_q[P_LIMBS];
    uint64_t alpha[N_LIMBS];
} gg18_private;

/* ssid: a hash as an integer, so it may be shorter than 32 bytes; never padded. v3 binds more into the challenges than v2. */
typedef struct gg18_session {
    bool v3;
    uint8_t ssid[32];
    size_t ssid_len;
} gg18_session;

/* ssid, or ctx(k) = ssid || I2B(k): nothing is appended for party 0. */
typedef struct gg18_tag {
    uint8_t bytes[32 + 1];
    size_t len;
} gg18_tag;

INTERNAL gg18_tag session_tag(const gg18_session *session);
INTERNAL gg18_tag session_context(const gg18_session *session, size_t party);

/** The ssid of a keygen (no public parameters yet): X and public NULL; of a signing: with those of all signers, in order.
 *  nonce: the last element: NULL is 0. keys are the party keys. False: the hash failed. */
INTERNAL MUST_USE bool session_open(
    gg18_session *session, bool v3, const uint32_t *keys, size_t n, const point *X, const gg18_public *const *public_,
    const uint8_t *nonce32);

/** The outcome of a check, 0 or 1, which is no secret: an honest run always passes it, and another one ends here. */
INTERNAL bool decided(uint64_t flag);

/** The same integer as a hash part, whatever its width. */
INTERNAL void transcript_big(transcript *t, big value);
INTERNAL void transcript_point(transcript *t, const point *p); /* two parts: x, y */

#endif
