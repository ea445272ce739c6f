#ifndef TSS_CHANNEL_H
#define TSS_CHANNEL_H

#include "tss.h"

/* tss_channel: one seat's end of the sealed channel between the parties of one ceremony. docs/channel.md specifies every byte.
 *
 * The grammar of tss.h holds here too. Besides:
 *  - The network is the enemy: tss_channel_receive takes any bytes, drops what is not genuine, and counts it by its cause.
 *  - The channel steps the attached party itself. Plaintext goes from the arena of one process to that of another.
 *  - Identity keys (ECDSA P-256) live elsewhere, in an HSM: the channel hands out digests and takes signatures.
 *  - Two parties sign nothing to each other but hellos, confirmations and notices: a broadcast with one receiver has no other version.
 *  - Time is an argument: now_ms counts milliseconds on any clock that never goes back; the latest told is the time.
 *
 * The life of a channel, in order (tss_channel_state):
 *   HELLO       tss_channel_start was not called yet, or a peer's hello is missing
 *   AGREED      all hellos are in and state the same ceremony: open the share, begin the party, tss_channel_attach
 *   RUNNING     the party takes its rounds
 *   RESULT      the party is done, or a peer has confirmed a valid signature: take the result, tss_channel_confirmation_digest,
 *               store, tss_channel_confirm
 *   CONFIRMING  (not in a signing) our confirmation is out and some are missing
 *   COMPLETE    a signing: our confirmation is out; else: all confirmations are in, and equal
 *   FAILED      tss_channel_fault tells why; reachable from every state before our own confirmation, and never after it
 * In COMPLETE and FAILED a channel still answers peers that lag behind: keep it for a while, feed and tick it. */

#define TSS_PARTY_ID_MAX 128u                   /* bytes of a party id */
#define TSS_CHANNEL_FRAME_MAX (260u * 1024u)    /* bytes of one frame */
#define TSS_CHANNEL_DETAIL_MAX 512u
#define TSS_CHANNEL_REASON_MAX 64u              /* bytes of the reason in an abort notice */
#define TSS_CHANNEL_TICK_MS 250u                /* tick at least this often */

typedef struct tss_channel tss_channel; /* one end of the channel, in one ceremony */

typedef enum tss_ceremony_kind { TSS_KEYGEN = 1, TSS_SIGNING = 2, TSS_ROTATION = 3 } tss_ceremony_kind;

typedef struct tss_member {
    uint32_t seat;
    char party_id[TSS_PARTY_ID_MAX + 1]; /* [A-Za-z0-9_-]+-[A-Za-z0-9_]+, NUL-terminated */
    uint8_t identity33[33];              /* its pinned identity key: P-256, compressed */
} tss_member;

/* What all must agree on, and who we are. The hello states it; T, the transcript, fixes it. */
typedef struct tss_ceremony {
    tss_ceremony_kind kind;
    tss_protocol protocol;
    uint8_t session16[16];
    uint32_t seat;          /* our own */
    uint16_t threshold;     /* t: that many sign */
    uint32_t generation;    /* of the share: 0 at keygen, one more with each rotation */
    uint16_t members_len;   /* those who take part: 2..TSS_PARTIES_MAX, at least t of them */
    tss_member members[TSS_PARTIES_MAX]; /* ascending by seat; seats, party ids and identities distinct */
    uint8_t has_public;     /* 1 in a signing and a rotation, 0 in a keygen */
    uint8_t public33[33];   /* the group's key, secp256k1, compressed */
    uint8_t has_digest;     /* 1 in a signing, else 0 */
    uint8_t digest32[32];   /* what is signed */
} tss_ceremony;

typedef enum tss_channel_state {
    TSS_CHANNEL_HELLO = 1,
    TSS_CHANNEL_AGREED = 2,
    TSS_CHANNEL_RUNNING = 3,
    TSS_CHANNEL_RESULT = 4,
    TSS_CHANNEL_CONFIRMING = 5,
    TSS_CHANNEL_COMPLETE = 6,
    TSS_CHANNEL_FAILED = 7,
} tss_channel_state;

typedef enum tss_channel_reason {
    TSS_CHANNEL_NONE = 0,
    TSS_CHANNEL_HELLO_DIFFERS = 1,  /* a peer's signed hello states another ceremony; detail has field and both values */
    TSS_CHANNEL_EPHEMERAL_KEY = 2,  /* two seats with one ephemeral key, or a key of low order */
    TSS_CHANNEL_EQUIVOCATION = 3,   /* two signed statements where there may be one; both are the evidence */
    TSS_CHANNEL_READY_DIFFERS = 4,  /* the parties hold different hellos, and nobody could be convicted */
    TSS_CHANNEL_ECHO_DIFFERS = 5,   /* the parties hold different broadcasts, and nobody could be convicted */
    TSS_CHANNEL_PAYLOAD = 6,        /* a frame with a good tag whose contents break the rules: its sender's doing. Between two parties
                                     * also an echo that differs: there nobody else can have told another version */
    TSS_CHANNEL_PARTY = 7,          /* the party failed; `party` has its fault */
    TSS_CHANNEL_CONFIRMATION_DIFFERS = 8, /* results differ; evidence holds the peer's statement */
    TSS_CHANNEL_ABORTED = 9,        /* a peer's signed abort notice; culprits it names are in `hearsay` alone */
    TSS_CHANNEL_LOCAL = 10,         /* tss_channel_abort */
    TSS_CHANNEL_INTERNAL = 11,      /* our own failure: memory, library */
} tss_channel_reason;

/* Why a frame was dropped: indices of tss_channel_drops. Nobody is to blame for any of them: whoever carries the frames can cause them. */
typedef enum tss_channel_drop {
    TSS_DROP_MALFORMED = 0,  /* does not decode */
    TSS_DROP_VERSION = 1,    /* another version of the channel */
    TSS_DROP_SESSION = 2,    /* another session */
    TSS_DROP_SENDER = 3,     /* from no seat of this ceremony, or from our own */
    TSS_DROP_RECEIVER = 4,   /* sealed to somebody else */
    TSS_DROP_SEQUENCE = 5,   /* beyond the window, or beyond 2^32-1 */
    TSS_DROP_REPEAT = 6,     /* had it already */
    TSS_DROP_TAG = 7,        /* changed, or from another session, pair or direction */
    TSS_DROP_SIGNATURE = 8,  /* a statement not signed by the key it needs; a ready only where its list differs */
    TSS_DROP_EARLY = 9,      /* before the hellos agree and more than is kept; it will be sent again */
    TSS_DROP_FULL = 10,      /* more than is held for one peer; it will be sent again */
    TSS_DROP_ACK = 11,       /* an ack too soon after the last, or for what was never sent */
    TSS_DROP_STATE = 12,     /* means nothing in this state */
    TSS_DROP_TRANSCRIPT = 13,/* a broadcast shown, a signature confirmed, or between two parties a ready, that is not of this transcript */
    TSS_DROP_ABORT = 14,     /* an abort notice of a seat that has confirmed */
} tss_channel_drop;
#define TSS_DROPS 15

typedef struct tss_channel_fault {
    tss_channel_reason reason;
    uint32_t by;              /* the seat whose message showed it, or 0: not an accusation */
    uint16_t culprits_len;    /* 0: nobody can be named */
    uint32_t culprits[TSS_PARTIES_MAX];
    uint16_t hearsay_len;     /* seats that a notice accuses without proof */
    uint32_t hearsay[TSS_PARTIES_MAX];
    char detail[TSS_CHANNEL_DETAIL_MAX]; /* NUL-terminated printable ASCII, no secrets */
    const uint8_t *evidence[2]; /* signed statements, or NULL; valid as long as the channel */
    size_t evidence_len[2];
    tss_fault party;          /* with TSS_CHANNEL_PARTY */
} tss_channel_fault;

typedef struct tss_frame {
    uint32_t to;      /* a seat, or TSS_BROADCAST */
    uint16_t round;   /* a hint for routers; 0 for all but protocol messages */
    const uint8_t *data; /* valid until the next call with the same channel */
    size_t data_len;
} tss_frame;

typedef struct tss_progress {
    uint16_t round;      /* as tss_party_round; 0 before a party is attached */
    uint16_t rounds;
    uint64_t steps;      /* grows with every hello, frame and confirmation that counts, and with nothing else */
    uint16_t waits_for_len;
    uint32_t waits_for[TSS_PARTIES_MAX]; /* seats */
} tss_progress;

/** A stable name: "hello-differs", "echo-differs", ... Never NULL. */
TSS_API const char *tss_channel_reason_name(tss_channel_reason reason);
/** A stable name: "malformed", "tag", ... Never NULL. */
TSS_API const char *tss_channel_drop_name(tss_channel_drop drop);

/** Returns 1 if what libcrypto allocates while it handles our keys lies in the arena too; 0 if libcrypto was in use before this
 *  library was loaded, so that such memory is ordinary heap, wiped when the call is over. */
TSS_API int tss_channel_libcrypto_locked(void);

/* ---- The channel ---- */

/** Open our end. Ephemeral keys are made here.
 *
 *  Returns: TSS_OK, TSS_MEMORY
 *           TSS_MISUSE  the ceremony breaks a rule of the structs above */
TSS_API TSS_MUST_USE tss_status tss_channel_new(tss_channel **channel, const tss_ceremony *ceremony);

/** The attached party is not freed. */
TSS_API void tss_channel_free(tss_channel *channel);

/** What our identity key signs for the hello. */
TSS_API void tss_channel_hello_digest(const tss_channel *channel, uint8_t *digest32);

/** The signature over it: the hello goes out. Once.
 *  Returns: TSS_OK; TSS_MEMORY; TSS_MISUSE: called before; TSS_REFUSED: not our identity's signature, or its s is high */
TSS_API TSS_MUST_USE tss_status tss_channel_start(tss_channel *channel, const uint8_t *signature64);

/** Take a frame from the network: any bytes. May compute rounds of the party.
 *
 *  Returns: TSS_OK       it counted
 *           TSS_NOTHING  dropped and counted (tss_channel_drops)
 *           TSS_MISUSE */
TSS_API TSS_MUST_USE tss_status tss_channel_receive(
    tss_channel *channel, const uint8_t *data, size_t data_len, uint64_t now_ms);

/** Let time pass: hellos, acks and notices that are due become outgoing. At least every TSS_CHANNEL_TICK_MS. */
TSS_API void tss_channel_tick(tss_channel *channel, uint64_t now_ms);

/** The way to the peers was lost and is there again: ask each for what is missing. */
TSS_API void tss_channel_connected(tss_channel *channel, uint64_t now_ms);

/** The next frame to send: TSS_OK or TSS_NOTHING. */
TSS_API TSS_MUST_USE tss_status tss_channel_outgoing(tss_channel *channel, tss_frame *frame);

TSS_API tss_channel_state tss_channel_state_of(const tss_channel *channel);

/** T: a value unique to this ceremony and equal at all parties; bind the party to it where its protocol can (session32).
 *  TSS_NOTHING before AGREED. */
TSS_API TSS_MUST_USE tss_status tss_channel_transcript(const tss_channel *channel, uint8_t *transcript32);

/** In AGREED: give the channel its party, fresh from tss_*_begin, with the same seats. Only the channel steps it from now on, and
 *  it must not be freed before the channel has left RUNNING. TSS_MISUSE in another state. */
TSS_API TSS_MUST_USE tss_status tss_channel_attach(tss_channel *channel, tss_party *party, uint64_t now_ms);

/** In RESULT: what our identity key signs for the confirmation.
 *
 *  Returns: TSS_OK
 *           TSS_FAULT   a peer has confirmed another result: FAILED
 *           TSS_MISUSE  not in RESULT, or result32 is missing or superfluous
 *  In: result32  keygen, rotation: tss_share_info.digest32 of the new share. NULL in a signing: its signature is confirmed */
TSS_API TSS_MUST_USE tss_status tss_channel_confirmation_digest(
    tss_channel *channel, uint8_t *digest32, const uint8_t *result32, uint64_t now_ms);

/** The statement without its signature, to be kept (sealed) with a pending share so that it can be signed again after a restart:
 *  valid as long as the channel. TSS_NOTHING before tss_channel_confirmation_digest. */
TSS_API TSS_MUST_USE tss_status tss_channel_confirmation_body(const tss_channel *channel, const uint8_t **body, size_t *body_len);

/** The signature over it: the confirmation goes out, and from here on this party can no longer abort.
 *  Returns: TSS_OK; TSS_MISUSE: not after tss_channel_confirmation_digest
 *           TSS_REFUSED  not our identity's signature; not looked at in a signing, where nothing hangs on it */
TSS_API TSS_MUST_USE tss_status tss_channel_confirm(tss_channel *channel, const uint8_t *signature64, uint64_t now_ms);

/** The confirmation of one seat, verbatim with its signature; valid as long as the channel. TSS_NOTHING: not there (or differs). In a
 *  signing between two parties its identity's signature may not have been looked at: we held the signature in it before. */
TSS_API TSS_MUST_USE tss_status tss_channel_confirmation(
    const tss_channel *channel, const uint8_t **statement, size_t *statement_len, uint32_t seat);

/** In a signing: the signature, ours or a peer's, verified; r||s, low s. TSS_NOTHING while there is none. */
TSS_API TSS_MUST_USE tss_status tss_channel_signature(
    const tss_channel *channel, uint8_t *signature64, uint8_t *recovery_id);

/** End the ceremony (FAILED, if it has not failed already) and say what our identity key signs to tell the peers.
 *
 *  Returns: TSS_OK
 *           TSS_MISUSE  after tss_channel_confirm, in COMPLETE, or reason is not 1..TSS_CHANNEL_REASON_MAX of [a-z0-9-] */
TSS_API TSS_MUST_USE tss_status tss_channel_abort(tss_channel *channel, uint8_t *digest32, const char *reason);

/** The signature over it: the notice goes out. Returns as tss_channel_start. */
TSS_API TSS_MUST_USE tss_status tss_channel_abort_signed(tss_channel *channel, const uint8_t *signature64);

/** reason is TSS_CHANNEL_NONE while nothing is wrong. In CONFIRMING and COMPLETE it may tell of peers that contradict, without
 *  ending anything: the confirmations decide. */
TSS_API void tss_channel_fault_of(const tss_channel *channel, tss_channel_fault *fault);

TSS_API void tss_channel_drops(const tss_channel *channel, uint64_t *drops); /* TSS_DROPS counters */
TSS_API void tss_channel_progress(const tss_channel *channel, tss_progress *progress);

/* ---- Statements, without a channel ---- */

typedef enum tss_frame_kind {
    TSS_FRAME_HELLO = 1,
    TSS_FRAME_READY = 2,
    TSS_FRAME_SEALED = 3,
    TSS_FRAME_ACK = 4,
    TSS_FRAME_CONFIRM = 5,
    TSS_FRAME_ABORT = 6,
    TSS_FRAME_BROADCAST = 7, /* the signed statement about a broadcast, shown in a dispute; between two parties there is none */
} tss_frame_kind;

/** What a frame claims to be, unverified: for finding its channel. TSS_REFUSED: not a frame of this version. */
TSS_API TSS_MUST_USE tss_status tss_frame_claims(
    tss_frame_kind *kind, uint8_t *session16, uint32_t *from, const uint8_t *data, size_t data_len);

/** ECDSA P-256 over a digest, r||s with low s. TSS_OK, or TSS_REFUSED: does not verify, s is high, or the key is no point. */
TSS_API TSS_MUST_USE tss_status tss_identity_verify(
    const uint8_t *identity33, const uint8_t *digest32, const uint8_t *signature64);

/* The contents of a confirmation. */
typedef struct tss_confirmation {
    tss_ceremony_kind kind;
    tss_protocol protocol;
    uint8_t session16[16];
    uint32_t seat;
    uint32_t generation;
    uint8_t committee32[32];  /* tss_committee_digest */
    uint8_t transcript32[32];
    uint8_t echo32[32];       /* over all broadcasts of all rounds */
    uint8_t result_len;       /* 32: a share's digest; 64: a signature */
    uint8_t result[64];
} tss_confirmation;

/** Read a statement, or a body: with identity33 the statement's signature is verified; NULL reads a body, which has none.
 *  TSS_REFUSED: malformed, or not signed by that key. */
TSS_API TSS_MUST_USE tss_status tss_confirmation_read(
    tss_confirmation *confirmation, const uint8_t *data, size_t data_len, const uint8_t *identity33);

/** What an identity key signs to confirm a body that tss_channel_confirmation_body gave. TSS_REFUSED: malformed. */
TSS_API TSS_MUST_USE tss_status tss_confirmation_digest(uint8_t *digest32, const uint8_t *body, size_t body_len);

/** members and threshold of the ceremony alone are read. */
TSS_API TSS_MUST_USE tss_status tss_committee_digest(uint8_t *digest32, const tss_ceremony *ceremony);

/* The contents of an abort notice. */
typedef struct tss_abort {
    uint8_t session16[16];
    uint32_t seat;
    char party_id[TSS_PARTY_ID_MAX + 1];
    char reason[TSS_CHANNEL_REASON_MAX + 1]; /* [a-z0-9-] */
    uint16_t culprits_len; /* hearsay */
    uint32_t culprits[TSS_PARTIES_MAX]; /* ascending */
} tss_abort;

/** The notice that is still to be signed, for a session that has no channel (any more), and what the identity key signs.
 *  *body_len: in, room (1 KiB is enough); out, written. The notice is the body followed by the signature. */
TSS_API TSS_MUST_USE tss_status tss_abort_body(
    uint8_t *body, size_t *body_len, uint8_t *digest32, const tss_abort *abort);

/** TSS_REFUSED: malformed, or not signed by that key. */
TSS_API TSS_MUST_USE tss_status tss_abort_read(
    tss_abort *abort, const uint8_t *notice, size_t notice_len, const uint8_t *identity33);

#endif
