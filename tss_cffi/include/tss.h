#ifndef TSS_H
#define TSS_H

#include <stddef.h>
#include <stdint.h>

/* tss: threshold signatures, one party at a time, without input or output of its own.
 *
 * GRAMMAR
 *  - Arguments come in this order: the object worked on, outputs, in-outs, inputs. A length follows its buffer.
 *  - A name that ends in digits is a buffer of exactly that many bytes: `digest32`, `public33`, `signature64`.
 *  - Every pointer MUST be valid and non-null unless its comment says "or NULL".
 *  - A function that can fail returns tss_status and sets its outputs to zero or NULL first, so that a failed call never
 *    leaves an earlier success behind.
 *  - Integers on the wire belong to the protocol; what this header writes itself is big-endian.
 *  - Opaque objects are freed by the function of the same name; freeing NULL does nothing. Freeing wipes.
 *  - Different objects may be used by different threads at the same time, one object by one thread at a time.
 *  - No function blocks, waits, reads a clock, opens a file or starts a thread. Randomness comes from the operating system.
 *
 * SECRETS live in one locked, guarded, non-dumpable arena (tss_open); computation on them runs on a stack inside it.
 *
 * A SEAT is a party's Shamir coordinate, 1 <= seat <= TSS_SEAT_MAX: in keygen, party_index + 1. Lists of seats are strictly
 * ascending. */

#if defined(__GNUC__)
#define TSS_API __attribute__((visibility("default")))
#define TSS_MUST_USE __attribute__((warn_unused_result))
#else
#define TSS_API
#define TSS_MUST_USE
#endif

#define TSS_PARTIES_MAX 32u              /* seats in a committee */
#define TSS_SEAT_MAX 0xffffu
#define TSS_MESSAGE_MAX (256u * 1024u)   /* bytes of one protocol message */
#define TSS_BROADCAST 0u                 /* in place of a receiver's seat */

typedef enum tss_status {
    TSS_OK = 0,
    TSS_REPEAT = 1,   /* the very same message again: nothing changed, nothing wrong */
    TSS_MORE = 2,     /* there is more of the same to do: call again */
    TSS_NOTHING = 3,  /* nothing to hand out */
    TSS_FAULT = 4,    /* the party has failed; tss_party_fault tells who and why */
    TSS_STRANGER = 5, /* the sender has no seat here, or it is our own: nothing changed */
    TSS_FINAL = 6,    /* the party is done or has failed: nothing changed */
    TSS_MISUSE = 7,   /* an argument breaks this contract: nothing changed; tss_last_misuse names it */
    TSS_REFUSED = 8,  /* key material is wrong; tss_last_misuse names the field */
    TSS_MEMORY = 9,   /* the arena or the heap is full, or memory cannot be locked */
} tss_status;

typedef enum tss_protocol {
    TSS_GG18_V2 = 1, /* threshold ECDSA on secp256k1, wire format of tss-lib v2 */
    TSS_GG18_V3 = 2, /* the same, wire format of tss-lib v3 */
} tss_protocol;

typedef enum tss_class { TSS_CLASS_BROADCAST = 1, TSS_CLASS_DIRECT = 2 } tss_class;

typedef enum tss_state {
    TSS_WANTS = 1,  /* waits for messages of its peers */
    TSS_HAS = 2,    /* has messages to send: tss_party_outgoing until TSS_NOTHING */
    TSS_DONE = 3,   /* has its result (and nothing more to send); final */
    TSS_FAILED = 4, /* final */
} tss_state;

typedef enum tss_reason {
    TSS_REASON_NONE = 0,
    TSS_REASON_MALFORMED = 1,    /* does not decode, or a count, length or range is wrong */
    TSS_REASON_CLASS = 2,        /* broadcast where it must be direct, or the reverse */
    TSS_REASON_EQUIVOCATION = 3, /* two different messages for one slot */
    TSS_REASON_PARAMETERS = 4,   /* public parameters that must not be accepted (size, shape, reuse) */
    TSS_REASON_COMMITMENT = 5,   /* an opening that does not fit its commitment */
    TSS_REASON_POINT = 6,        /* not a point of the curve, not canonical, or infinity */
    TSS_REASON_PROOF = 7,        /* a zero-knowledge proof does not verify */
    TSS_REASON_SHARE = 8,        /* a dealt share does not fit its public polynomial */
    TSS_REASON_DECRYPTION = 9,   /* a ciphertext that does not decrypt into its range */
    TSS_REASON_INCONSISTENT = 10,/* the parties' values do not agree; nobody can be named */
    TSS_REASON_SIGNATURE = 11,   /* the assembled signature does not verify; nobody can be named */
    TSS_REASON_INTERNAL = 12,    /* our own failure: memory, randomness */
} tss_reason;

typedef struct tss_secret tss_secret;   /* bytes in the arena */
typedef struct tss_prepare tss_prepare; /* the search for pre-parameters */
typedef struct tss_share tss_share;     /* one checked key share */
typedef struct tss_party tss_party;     /* one seat in one ceremony */

/* Who and why. culprits holds seats; culprits_len 0 means that nobody can be named. */
typedef struct tss_fault {
    tss_reason reason;
    uint16_t round;      /* protocol round in which it was found, from 1 */
    uint16_t culprits_len;
    uint32_t culprits[TSS_PARTIES_MAX];
    char detail[64];     /* which check, in the protocol's own words; NUL-terminated ASCII, no secrets */
} tss_fault;

typedef struct tss_usage {
    size_t capacity; /* bytes of the arena */
    size_t used;
    size_t peak;
} tss_usage;

/* The public side of a share. */
typedef struct tss_share_info {
    tss_protocol protocol;
    uint16_t threshold; /* t: that many sign */
    uint16_t parties;   /* n */
    uint32_t seat;      /* our own */
    uint32_t seats[TSS_PARTIES_MAX];
    uint8_t public33[33];
    uint8_t digest32[32]; /* over everything that all parties must agree on: public key, public shares, parameters */
} tss_share_info;

/* One message to send. `data` lies in the arena and stays valid until the next call with the same party. */
typedef struct tss_message {
    tss_class class_;
    uint32_t to;    /* a seat, or TSS_BROADCAST */
    uint16_t round; /* from 1 */
    const uint8_t *data;
    size_t data_len;
} tss_message;

/* ---- The process ---- */

/** Make the arena: once per process, before anything else.
 *
 *  Returns: TSS_OK      made
 *           TSS_MISUSE  made already, or arena_len not in 1 MiB..1 GiB
 *           TSS_MEMORY  the memory cannot be had or cannot be locked (raise RLIMIT_MEMLOCK)
 */
TSS_API TSS_MUST_USE tss_status tss_open(size_t arena_len);

/** Wipe and release the arena. Every object must have been freed; returns TSS_MISUSE, and does nothing, when one is left. */
TSS_API TSS_MUST_USE tss_status tss_close(void);

TSS_API void tss_arena_usage(tss_usage *usage);

/** The name of the argument or field that the calling thread's last TSS_MISUSE or TSS_REFUSED was about; "" if none. */
TSS_API const char *tss_last_misuse(void);

/** "malformed", "proof", ...: a stable name for logs and interfaces. Never NULL. */
TSS_API const char *tss_reason_name(tss_reason reason);

/* ---- Secret bytes ---- */

/** len in 1..1 MiB, zeroed. */
TSS_API TSS_MUST_USE tss_status tss_secret_new(tss_secret **secret, size_t len);
TSS_API void tss_secret_free(tss_secret *secret);
TSS_API uint8_t *tss_secret_data(tss_secret *secret);
TSS_API size_t tss_secret_len(const tss_secret *secret);

/* ---- Pre-parameters: what a protocol wants to have computed ahead of a keygen ---- */

/** Begin a search. TSS_NOTHING: this protocol needs none. */
TSS_API TSS_MUST_USE tss_status tss_prepare_begin(tss_prepare **prepare, tss_protocol protocol);

/** Work for a few milliseconds; stop calling and free to cancel.
 *
 *  Returns: TSS_MORE  go on; *permille has an estimate of the progress, never decreasing, 0..999
 *           TSS_OK    found: *prepared is the caller's, sealed bytes of at most 8 KiB, for one keygen
 */
TSS_API TSS_MUST_USE tss_status tss_prepare_step(tss_prepare *prepare, tss_secret **prepared, uint16_t *permille);
TSS_API void tss_prepare_free(tss_prepare *prepare);

/** Fingerprints (SHA-256) of the values in a pre-parameter set, or in a share for all its parties, that must never be used
 *  by two of anything. *len: in, room in units of 32 bytes; out, how many there are. TSS_MISUSE when the room is too small. */
TSS_API TSS_MUST_USE tss_status tss_prepared_fingerprints(uint8_t *out32, size_t *len, const tss_secret *prepared);
TSS_API TSS_MUST_USE tss_status tss_share_fingerprints(uint8_t *out32, size_t *len, const tss_share *share);

/* ---- Shares ---- */

/** Check and load a share that tss_keygen_result wrote. Every relation that can be checked is checked.
 *  TSS_REFUSED: tss_last_misuse names the field. The bytes may be freed afterwards. */
TSS_API TSS_MUST_USE tss_status tss_share_load(tss_share **share, const tss_secret *bytes);

/** Load a share whose very bytes tss_share_load has taken before, and which nobody else can have made or changed since: they
 *  come out of a seal that only its maker could set. For any other bytes use tss_share_load.
 *
 *  Checked is what costs next to nothing: structure, digest, sizes and ranges, seats, N = pq and N~ as stated, doubled
 *  parameters, our public share. NOT checked, because it takes milliseconds and does not change: that the primes are safe
 *  primes, the order of h1, h2 = h1^alpha, common factors, the polynomial and its degree.
 *  Otherwise as tss_share_load. */
TSS_API TSS_MUST_USE tss_status tss_share_load_proven(tss_share **share, const tss_secret *bytes);
TSS_API void tss_share_free(tss_share *share);
TSS_API void tss_share_describe(const tss_share *share, tss_share_info *info);

/** Turn another implementation's share (GG18: tss-lib's LocalPartySaveData as JSON) into our form, in the arena.
 *  threshold is t (that many sign): such files do not state it. Checked as tss_share_load does. */
TSS_API TSS_MUST_USE tss_status tss_share_import(
    tss_secret **bytes, tss_protocol protocol, uint16_t threshold, const tss_secret *foreign);

/* ---- Parties ---- */

/** Open a seat in a keygen.
 *  Out: party
 *  In:  seats     seats_len (n) seats, ascending, ours among them; 2 <= n <= TSS_PARTIES_MAX
 *       threshold t: 2 <= t <= n
 *       prepared  spent by this call whatever it returns but TSS_MISUSE; wiped, though still to be freed by the caller.
 *                 NULL where the protocol needs none
 *       session32 or NULL: a value unique to this ceremony and equal at all parties, where the protocol can bind one
 *                 (GG18_V3); TSS_MISUSE where it cannot (GG18_V2) */
TSS_API TSS_MUST_USE tss_status tss_keygen_begin(
    tss_party **party, tss_protocol protocol, uint32_t seat, const uint32_t *seats, size_t seats_len, uint16_t threshold,
    tss_secret *prepared, const uint8_t *session32);

/** Open a seat in a signing. The share is copied as far as needed and may be freed.
 *  In: signers   signers_len seats out of the share's committee, ascending, ours among them; t <= signers_len <= n
 *      digest32  what is signed, big-endian, reduced modulo the group order by this call */
TSS_API TSS_MUST_USE tss_status tss_signing_begin(
    tss_party **party, const tss_share *share, const uint32_t *signers, size_t signers_len, const uint8_t *digest32,
    const uint8_t *session32);

TSS_API void tss_party_free(tss_party *party);
TSS_API tss_state tss_party_state(const tss_party *party);

/** The round whose messages the party waits for, from 1, and how many rounds there are. */
TSS_API void tss_party_round(const tss_party *party, uint16_t *round, uint16_t *rounds);

/** Bit i of the result is set where the party still waits for a message of the i-th seat of the ceremony (never our own). */
TSS_API uint32_t tss_party_waits_for(const tss_party *party);

/** Take one message of a peer. Messages of later rounds are kept. When the last one of a round is in, the round is computed.
 *
 *  Returns: TSS_OK, TSS_REPEAT, TSS_STRANGER, TSS_FINAL, TSS_FAULT, TSS_MISUSE
 *           TSS_MEMORY  no room for a stack: nothing changed, offer it again
 *  In: from    the sender's seat, vouched for by the channel
 *      class_  how the channel delivered it
 *      data    data_len bytes, 0..TSS_MESSAGE_MAX */
TSS_API TSS_MUST_USE tss_status tss_party_receive(
    tss_party *party, uint32_t from, tss_class class_, const uint8_t *data, size_t data_len);

/** The next message to send: TSS_OK or TSS_NOTHING. */
TSS_API TSS_MUST_USE tss_status tss_party_outgoing(tss_party *party, tss_message *message);

/** Valid in TSS_FAILED: else reason is TSS_REASON_NONE. */
TSS_API void tss_party_fault(const tss_party *party, tss_fault *fault);

/** The share that a finished keygen made: handed over once, TSS_NOTHING afterwards and before. */
TSS_API TSS_MUST_USE tss_status tss_keygen_result(tss_party *party, tss_secret **bytes);

/** r||s with low s, and the recovery id 0..3 of it. TSS_NOTHING while there is none. */
TSS_API TSS_MUST_USE tss_status tss_signing_result(const tss_party *party, uint8_t *signature64, uint8_t *recovery_id);

#endif
