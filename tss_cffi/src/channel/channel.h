#ifndef TSS_CHANNEL_CHANNEL_H
#define TSS_CHANNEL_CHANNEL_H

#include "abort.h"
#include "confirmation.h"
#include "crypto.h"
#include "echo.h"
#include "encoding.h"
#include "frame.h"
#include "hello.h"
#include "window.h"

/* The state of one end of the channel. docs/channel.md, "States". */

#define CHANNEL_REPEAT_MS ((uint64_t)1000) /* hellos, acks, shown evidence: not more often than this without progress */
#define CHANNEL_RESEND_MS ((uint64_t)500)  /* what a peer asks for, it gets at most this often */
#define CHANNEL_DISPUTE_MS ((uint64_t)5000) /* how long the parties show each other what they hold */
#define CHANNEL_ROUNDS_MAX 32u
#define CHANNEL_SHOWN_MAX ((size_t)2 * TSS_PARTIES_MAX)

/* A frame in clear that may be sent again. */
typedef struct channel_statement {
    uint8_t *data; /* NULL: none */
    size_t len;
    uint32_t due; /* peers that are to get it, by index */
} channel_statement;

typedef struct channel_peer {
    crypto_identity *identity;
    channel_statement hello; /* as it came, signature included: evidence in a dispute */
    uint8_t x25519_32[32];
    uint8_t ed25519_32[32];
    channel_statement confirmation; /* the one that counts */
    channel_statement abort;
    window window;
    bool heard;    /* a frame of its has opened: it holds the hellos that we hold */
    bool answered; /* ever; then last_answer_ms holds */
    uint64_t last_answer_ms;
    bool ack_due;
} channel_peer;

/* In the arena. */
typedef struct channel_keys {
    uint8_t x25519_private32[32];
    uint8_t ed25519_seed32[32]; /* zeros between two */
    uint8_t send32[TSS_PARTIES_MAX][32];
    uint8_t receive32[TSS_PARTIES_MAX][32];
} channel_keys;

struct tss_channel {
    tss_ceremony ceremony;
    size_t n;
    size_t self;    /* index */
    uint32_t peers; /* all but self, by index */
    tss_channel_state state;
    bool started;
    channel_keys *keys; /* NULL once they are of no more use */
    crypto_tools tools; /* from AGREED on, as long as the keys */
    channel_peer members[TSS_PARTIES_MAX]; /* members[self]: our own hello and confirmation */
    uint8_t hello_hashes32[TSS_PARTIES_MAX][32];
    uint8_t committee32[32];
    bool has_transcript; /* from AGREED on */
    uint8_t transcript32[32];

    tss_party *party; /* in RUNNING alone */
    uint16_t round;   /* when it was let go */
    uint16_t rounds;
    echo_round *echoes; /* by round - 1 */

    uint8_t body[CONFIRMATION_BODY_MAX]; /* of our confirmation */
    size_t body_len;
    bool has_signature;
    uint8_t signature64[64];
    uint8_t recovery_id;

    uint8_t notice[ABORT_BODY_MAX]; /* the body of our abort notice, while it is to be signed */
    size_t notice_len;
    channel_statement abort; /* the notice that we tell: ours, or the one that ended us */
    channel_statement shown[CHANNEL_SHOWN_MAX];
    size_t shown_len;

    tss_channel_fault fault;
    channel_statement evidence[2];
    bool convicted; /* evidence holds both statements of somebody's equivocation */
    bool disputed; /* `dispute` becomes `fault` at dispute_ends_ms, if nothing better is found */
    tss_channel_fault dispute;
    uint64_t dispute_ends_ms;

    uint64_t now_ms; /* the latest that the caller told */
    uint64_t drops[TSS_DROPS];
    uint64_t steps;
    uint64_t seen_steps; /* at the last tick */
    bool ticked;
    uint64_t stalled_since_ms;
    uint64_t last_hello_ms;
    uint64_t last_show_ms;
    uint8_t *handed; /* an ack that the caller reads at the moment */
};

#endif
