#ifndef TSS_CHANNEL_ECHO_H
#define TSS_CHANNEL_ECHO_H

#include "crypto.h"
#include "encoding.h"

/* What each seat broadcast in each round: the hash of the payload and the sender's signature over it, so that two seats can compare,
 * and so that a sender who sent two versions convicts itself. docs/channel.md, "Broadcasts and their echo". */

#define BROADCAST_BODY_LEN (CHANNEL_HEADER_LEN + 32 + 2 + 32)
#define BROADCAST_LEN (BROADCAST_BODY_LEN + CHANNEL_SIGNATURE_LEN)

typedef struct echo_round {
    uint32_t present; /* by index of the seat */
    uint8_t hashes32[TSS_PARTIES_MAX][32]; /* zeros where not present */
    uint8_t signatures64[TSS_PARTIES_MAX][64];
} echo_round;

/* The contents of a signed broadcast. */
typedef struct channel_broadcast {
    channel_header header; /* from: who broadcast, not who shows it */
    uint8_t transcript32[32];
    uint16_t round;
    uint8_t hash32[32];
} channel_broadcast;

INTERNAL void broadcast_write(
    writer *w, const uint8_t *session16, uint32_t from, const uint8_t *transcript32, uint16_t round, const uint8_t *hash32);
INTERNAL MUST_USE bool broadcast_read(channel_broadcast *broadcast, span body);

/** SHA-256 over all rounds' hashes of all seats. */
INTERNAL MUST_USE bool echo_digest(uint8_t *digest32, const echo_round *echoes, uint16_t rounds, size_t seats);

#endif
