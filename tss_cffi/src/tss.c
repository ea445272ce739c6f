/* The one translation unit: all files of the core, then the functions of include/tss.h: argument checks, and the way onto a
 * secret stack; then the channel. */

#include "../include/tss.h"
#include "../include/tss_channel.h"

#include "channel/crypto.h"
#include "secret_impl.h"

#include "random_impl.h"

#include "montgomery_impl.h"

#include "bigint_impl.h"

#include "curve_impl.h"

#include "primes_impl.h"

#include "wire_impl.h"

#include "vss_impl.h"

#include "party_impl.h"

#include "protocol_impl.h"

#include "gg18/transcript_impl.h"

#include "gg18/session_impl.h"

#include "gg18/messages_impl.h"

#include "gg18/paillier_impl.h"

#include "gg18/ring_impl.h"

#include "gg18/proofs_impl.h"

#include "gg18/share_impl.h"

#include "gg18/prepare_impl.h"

#include "gg18/foreign_impl.h"

#include "gg18/keygen_impl.h"

#include "gg18/signing_impl.h"

#include "gg18/gg18_impl.h"

/* ---- Arguments ---- */

/* Of the thread: what its last TSS_MISUSE or TSS_REFUSED was about. */
static _Thread_local const char *misuse = "";

static tss_status refuse(tss_status status, const char *about) {
    misuse = about;
    return status;
}

#define ARG_CHECK(condition, argument)            \
    do {                                          \
        if (!(condition)) {                       \
            return refuse(TSS_MISUSE, argument);  \
        }                                         \
    } while (0)

static const protocol *protocol_of(uint32_t id) {
    return gg18_protocol((tss_protocol)id);
}

/* Ascending, in range, at most TSS_PARTIES_MAX. */
static bool seats_valid(const uint32_t *seats, size_t n) {
    bool valid = n >= 2 && n <= TSS_PARTIES_MAX;
    for (size_t i = 0; valid && i < n; i++) {
        valid = seats[i] >= 1 && seats[i] <= TSS_SEAT_MAX && (i == 0 || seats[i] > seats[i - 1]);
    }
    return valid;
}

static bool seats_hold(const uint32_t *seats, size_t n, uint32_t seat) {
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        found = found || seats[i] == seat;
    }
    return found;
}

const char *tss_last_misuse(void) { return misuse; }

const char *tss_reason_name(tss_reason reason) {
    static const char *const names[] = {
        [TSS_REASON_NONE] = "none",
        [TSS_REASON_MALFORMED] = "malformed",
        [TSS_REASON_CLASS] = "class",
        [TSS_REASON_EQUIVOCATION] = "equivocation",
        [TSS_REASON_PARAMETERS] = "parameters",
        [TSS_REASON_COMMITMENT] = "commitment",
        [TSS_REASON_POINT] = "point",
        [TSS_REASON_PROOF] = "proof",
        [TSS_REASON_SHARE] = "share",
        [TSS_REASON_DECRYPTION] = "decryption",
        [TSS_REASON_INCONSISTENT] = "inconsistent",
        [TSS_REASON_SIGNATURE] = "signature",
        [TSS_REASON_INTERNAL] = "internal",
    };
    const size_t index = (size_t)reason;
    return index < sizeof(names) / sizeof(names[0]) ? names[index] : "unknown";
}

/* ---- The process ---- */

enum { ARENA_MIN = 1024 * 1024, ARENA_MAX = 1024 * 1024 * 1024 };

tss_status tss_open(size_t arena_len) {
    ARG_CHECK(arena_len >= ARENA_MIN && arena_len <= ARENA_MAX, "arena_len");
    ARG_CHECK(!secret_is_open(), "tss_open: made already");
    if (!random_works() || !secret_open(arena_len)) {
        return TSS_MEMORY;
    }
    if (!curve_open() || !crypto_warm_up()) {
        curve_close();
        const bool closed = secret_close();
        VERIFY_CHECK(closed);
        (void)closed;
        return TSS_MEMORY;
    }
    return TSS_OK;
}

tss_status tss_close(void) {
    ARG_CHECK(secret_is_open(), "tss_close: not open");
    curve_close();
    if (!secret_close()) {
        /* Something is left. The context had room a moment ago, so it has again. */
        const bool reopened = curve_open();
        VERIFY_CHECK(reopened);
        (void)reopened;
        return refuse(TSS_MISUSE, "tss_close: an object is left");
    }
    return TSS_OK;
}

void tss_arena_usage(tss_usage *usage) {
    if (usage != NULL) {
        secret_usage(&usage->capacity, &usage->used, &usage->peak);
    }
}

/* ---- Secret bytes ---- */

enum { SECRET_MAX = 1024 * 1024 };

tss_status tss_secret_new(tss_secret **secret, size_t len) {
    ARG_CHECK(secret != NULL, "secret");
    *secret = NULL;
    ARG_CHECK(len >= 1 && len <= SECRET_MAX, "len");
    *secret = secret_bytes_new(len);
    return *secret != NULL ? TSS_OK : TSS_MEMORY;
}

void tss_secret_free(tss_secret *secret) { secret_free(secret); }

uint8_t *tss_secret_data(tss_secret *secret) { return secret != NULL ? secret->data : NULL; }

size_t tss_secret_len(const tss_secret *secret) { return secret != NULL ? secret->len : 0; }

static span secret_span(const tss_secret *secret) { return (span){secret->data, secret->len}; }

/* ---- Pre-parameters ---- */

struct tss_prepare {
    const protocol *protocol;
    void *search;
    tss_secret *found; /* results of the call under way */
    uint16_t permille;
    tss_status status;
};

static void prepare_begin_run(void *argument) {
    tss_prepare *prepare = argument;
    prepare->search = prepare->protocol->prepare_begin();
}

static void prepare_step_run(void *argument) {
    tss_prepare *prepare = argument;
    prepare->status = prepare->protocol->prepare_step(prepare->search, &prepare->found, &prepare->permille);
}

tss_status tss_prepare_begin(tss_prepare **prepare, tss_protocol id) {
    const protocol *p = protocol_of(id);
    ARG_CHECK(prepare != NULL, "prepare");
    *prepare = NULL;
    ARG_CHECK(p != NULL, "protocol");
    if (!p->wants_prepared) {
        return TSS_NOTHING;
    }
    tss_prepare *begun = secret_alloc(sizeof(tss_prepare));
    if (begun == NULL) {
        return TSS_MEMORY;
    }
    begun->protocol = p;
    if (!secret_call(prepare_begin_run, begun) || begun->search == NULL) {
        secret_free(begun);
        return TSS_MEMORY;
    }
    *prepare = begun;
    return TSS_OK;
}

tss_status tss_prepare_step(tss_prepare *prepare, tss_secret **prepared, uint16_t *permille) {
    ARG_CHECK(prepared != NULL, "prepared");
    *prepared = NULL;
    ARG_CHECK(permille != NULL, "permille");
    *permille = 0;
    ARG_CHECK(prepare != NULL, "prepare");
    if (!secret_call(prepare_step_run, prepare)) {
        return TSS_MEMORY;
    }
    *permille = prepare->permille;
    *prepared = prepare->found;
    prepare->found = NULL;
    return prepare->status;
}

void tss_prepare_free(tss_prepare *prepare) {
    if (prepare != NULL) {
        prepare->protocol->prepare_end(prepare->search);
        secret_free(prepare);
    }
}

/* Fingerprints go to a buffer of full size first: the caller's may be too small. */
static tss_status fingerprints_out(uint8_t *out32, size_t *len, const uint8_t *all32, size_t count, tss_status status) {
    const size_t room = *len;
    *len = 0;
    if (status != TSS_OK) {
        return status;
    }
    ARG_CHECK(room >= count, "len");
    memcpy(out32, all32, 32 * count);
    *len = count;
    return TSS_OK;
}

typedef struct fingerprints_call {
    const protocol *protocol;
    const tss_secret *prepared;
    const void *share;
    const char *field;
    size_t count;
    tss_status status;
    uint8_t out32[32 * FINGERPRINTS_MAX];
} fingerprints_call;

static void prepared_fingerprints_run(void *argument) {
    fingerprints_call *call = argument;
    call->status = call->protocol->prepared_fingerprints(call->out32, &call->count, &call->field, secret_span(call->prepared));
}

static void share_fingerprints_run(void *argument) {
    fingerprints_call *call = argument;
    call->status = call->protocol->share_fingerprints(call->out32, &call->count, call->share) ? TSS_OK : TSS_MEMORY;
}

tss_status tss_prepared_fingerprints(uint8_t *out32, size_t *len, const tss_secret *prepared) {
    ARG_CHECK(out32 != NULL, "out32");
    ARG_CHECK(len != NULL, "len");
    ARG_CHECK(prepared != NULL, "prepared");
    reader r = reader_open(secret_span(prepared));
    fingerprints_call call = {.protocol = protocol_of(kept_read(&r, KEPT_PREPARED)), .prepared = prepared};
    if (call.protocol == NULL) {
        *len = 0;
        return refuse(TSS_REFUSED, "prepared: format");
    }
    if (!secret_call(prepared_fingerprints_run, &call)) {
        call.status = TSS_MEMORY;
    }
    if (call.status == TSS_REFUSED) {
        (void)refuse(TSS_REFUSED, call.field);
    }
    return fingerprints_out(out32, len, call.out32, call.count, call.status);
}

/* ---- Shares ---- */

struct tss_share {
    const protocol *protocol;
    void *body;
    tss_share_info info;
};

tss_status tss_share_fingerprints(uint8_t *out32, size_t *len, const tss_share *share) {
    ARG_CHECK(out32 != NULL, "out32");
    ARG_CHECK(len != NULL, "len");
    ARG_CHECK(share != NULL, "share");
    fingerprints_call call = {.protocol = share->protocol, .share = share->body};
    if (!secret_call(share_fingerprints_run, &call)) {
        call.status = TSS_MEMORY;
    }
    return fingerprints_out(out32, len, call.out32, call.count, call.status);
}

typedef struct share_load_call {
    tss_share *share;
    const tss_secret *bytes;
    bool prove;
    const char *field;
    tss_status status;
} share_load_call;

static void share_load_run(void *argument) {
    share_load_call *call = argument;
    tss_share *share = call->share;
    call->status = share->protocol->share_load(&share->body, &call->field, secret_span(call->bytes), call->prove);
    if (call->status == TSS_OK && !share->protocol->share_describe(&share->info, share->body)) {
        share->protocol->share_free(share->body);
        call->status = TSS_MEMORY;
    }
}

static tss_status share_load(tss_share **share, const tss_secret *bytes, bool prove) {
    ARG_CHECK(share != NULL, "share");
    *share = NULL;
    ARG_CHECK(bytes != NULL, "bytes");
    reader r = reader_open(secret_span(bytes));
    const protocol *p = protocol_of(kept_read(&r, KEPT_SHARE));
    if (p == NULL) {
        return refuse(TSS_REFUSED, "format");
    }
    share_load_call call = {
        .share = secret_alloc(sizeof(tss_share)), .bytes = bytes, .prove = prove, .status = TSS_MEMORY};
    if (call.share == NULL) {
        return TSS_MEMORY;
    }
    call.share->protocol = p;
    if (!secret_call(share_load_run, &call) || call.status != TSS_OK) {
        secret_free(call.share);
        return call.status == TSS_REFUSED ? refuse(TSS_REFUSED, call.field) : TSS_MEMORY;
    }
    *share = call.share;
    return TSS_OK;
}

tss_status tss_share_load(tss_share **share, const tss_secret *bytes) { return share_load(share, bytes, true); }

tss_status tss_share_load_proven(tss_share **share, const tss_secret *bytes) { return share_load(share, bytes, false); }

void tss_share_free(tss_share *share) {
    if (share != NULL) {
        share->protocol->share_free(share->body);
        secret_free(share);
    }
}

void tss_share_describe(const tss_share *share, tss_share_info *info) {
    if (share != NULL && info != NULL) {
        *info = share->info;
    }
}

typedef struct share_import_call {
    const protocol *protocol;
    tss_secret *bytes;
    const tss_secret *foreign;
    uint16_t threshold;
    const char *field;
    tss_status status;
} share_import_call;

static void share_import_run(void *argument) {
    share_import_call *call = argument;
    call->status = call->protocol->share_import(
        &call->bytes, &call->field, call->protocol->id, call->threshold, secret_span(call->foreign));
}

tss_status tss_share_import(tss_secret **bytes, tss_protocol id, uint16_t threshold, const tss_secret *foreign) {
    const protocol *p = protocol_of(id);
    ARG_CHECK(bytes != NULL, "bytes");
    *bytes = NULL;
    ARG_CHECK(p != NULL, "protocol");
    ARG_CHECK(threshold >= 2 && threshold <= TSS_PARTIES_MAX, "threshold");
    ARG_CHECK(foreign != NULL, "foreign");
    share_import_call call = {.protocol = p, .foreign = foreign, .threshold = threshold};
    if (!secret_call(share_import_run, &call)) {
        return TSS_MEMORY;
    }
    *bytes = call.bytes;
    return call.status == TSS_REFUSED ? refuse(TSS_REFUSED, call.field) : call.status;
}

/* ---- Parties ---- */

typedef struct begin_call {
    const protocol *protocol;
    tss_party *party;
    const char *field;
    tss_protocol id;
    uint32_t seat;
    const uint32_t *seats;
    size_t n;
    uint16_t threshold;
    tss_secret *prepared;
    const tss_share *share;
    const uint8_t *digest32;
    const uint8_t *session32;
    tss_status status;
} begin_call;

static void keygen_begin_run(void *argument) {
    begin_call *call = argument;
    call->status = call->protocol->keygen_begin(
        &call->party, &call->field, call->id, call->seat, call->seats, call->n, call->threshold, call->prepared,
        call->session32);
}

static void signing_begin_run(void *argument) {
    begin_call *call = argument;
    call->status = call->protocol->signing_begin(
        &call->party, call->share->body, call->seats, call->n, call->digest32, call->session32);
}

tss_status tss_keygen_begin(
    tss_party **party, tss_protocol id, uint32_t seat, const uint32_t *seats, size_t seats_len, uint16_t threshold,
    tss_secret *prepared, const uint8_t *session32) {
    const protocol *p = protocol_of(id);
    ARG_CHECK(party != NULL, "party");
    *party = NULL;
    ARG_CHECK(p != NULL, "protocol");
    ARG_CHECK(seats != NULL && seats_valid(seats, seats_len), "seats");
    ARG_CHECK(seats_hold(seats, seats_len, seat), "seat");
    ARG_CHECK(threshold >= 2 && threshold <= seats_len, "threshold");
    ARG_CHECK((prepared != NULL) == p->wants_prepared, "prepared");
    ARG_CHECK(session32 == NULL || p->binds_session, "session32");
    begin_call call = {
        .protocol = p,
        .id = id,
        .seat = seat,
        .seats = seats,
        .n = seats_len,
        .threshold = threshold,
        .prepared = prepared,
        .session32 = session32,
    };
    if (!secret_call(keygen_begin_run, &call)) {
        call.status = TSS_MEMORY;
    }
    if (prepared != NULL) {
        secret_wipe(prepared->data, prepared->len); /* spent, whatever came of it */
    }
    *party = call.party;
    return call.status == TSS_REFUSED ? refuse(TSS_REFUSED, call.field) : call.status;
}

tss_status tss_signing_begin(
    tss_party **party, const tss_share *share, const uint32_t *signers, size_t signers_len, const uint8_t *digest32,
    const uint8_t *session32) {
    ARG_CHECK(party != NULL, "party");
    *party = NULL;
    ARG_CHECK(share != NULL, "share");
    ARG_CHECK(signers != NULL && seats_valid(signers, signers_len), "signers");
    ARG_CHECK(signers_len >= share->info.threshold && seats_hold(signers, signers_len, share->info.seat), "signers");
    for (size_t i = 0; i < signers_len; i++) {
        ARG_CHECK(seats_hold(share->info.seats, share->info.parties, signers[i]), "signers");
    }
    ARG_CHECK(digest32 != NULL, "digest32");
    ARG_CHECK(session32 == NULL || share->protocol->binds_session, "session32");
    begin_call call = {
        .protocol = share->protocol,
        .share = share,
        .seats = signers,
        .n = signers_len,
        .digest32 = digest32,
        .session32 = session32,
    };
    if (!secret_call(signing_begin_run, &call)) {
        return TSS_MEMORY;
    }
    *party = call.party;
    return call.status;
}

void tss_party_free(tss_party *party) { party_free(party); }

tss_state tss_party_state(const tss_party *party) { return party != NULL ? party_state(party) : TSS_FAILED; }

void tss_party_round(const tss_party *party, uint16_t *round, uint16_t *rounds) {
    if (party != NULL && round != NULL && rounds != NULL) {
        *round = party->round;
        *rounds = party->ceremony->rounds;
    }
}

uint32_t tss_party_waits_for(const tss_party *party) { return party != NULL ? party_waits_for(party) : 0; }

typedef struct receive_call {
    tss_party *party;
    uint32_t from;
    tss_class class_;
    span message;
    tss_status status;
} receive_call;

static void receive_run(void *argument) {
    receive_call *call = argument;
    call->status = party_receive(call->party, call->from, call->class_, call->message);
}

tss_status tss_party_receive(tss_party *party, uint32_t from, tss_class class_, const uint8_t *data, size_t data_len) {
    ARG_CHECK(party != NULL, "party");
    ARG_CHECK(class_ == TSS_CLASS_BROADCAST || class_ == TSS_CLASS_DIRECT, "class_");
    ARG_CHECK(data != NULL || data_len == 0, "data");
    ARG_CHECK(data_len <= TSS_MESSAGE_MAX, "data_len");
    static const uint8_t nothing = 0;
    receive_call call = {
        .party = party, .from = from, .class_ = class_, .message = {data != NULL ? data : &nothing, data_len}};
    return secret_call(receive_run, &call) ? call.status : TSS_MEMORY;
}

tss_status tss_party_outgoing(tss_party *party, tss_message *message) {
    ARG_CHECK(message != NULL, "message");
    memset(message, 0, sizeof(*message));
    ARG_CHECK(party != NULL, "party");
    return party_outgoing(party, message);
}

void tss_party_fault(const tss_party *party, tss_fault *fault) {
    if (party != NULL && fault != NULL) {
        *fault = party->fault;
    }
}

tss_status tss_keygen_result(tss_party *party, tss_secret **bytes) {
    ARG_CHECK(bytes != NULL, "bytes");
    *bytes = NULL;
    ARG_CHECK(party != NULL, "party");
    if (party_state(party) != TSS_DONE || party->share == NULL) {
        return TSS_NOTHING;
    }
    *bytes = party->share;
    party->share = NULL;
    return TSS_OK;
}

tss_status tss_signing_result(const tss_party *party, uint8_t *signature64, uint8_t *recovery_id) {
    ARG_CHECK(signature64 != NULL, "signature64");
    memset(signature64, 0, 64);
    ARG_CHECK(recovery_id != NULL, "recovery_id");
    *recovery_id = 0;
    ARG_CHECK(party != NULL, "party");
    if (!party->has_signature) {
        return TSS_NOTHING;
    }
    memcpy(signature64, party->signature64, 64);
    *recovery_id = party->recovery_id;
    return TSS_OK;
}

#ifdef TSS_SEEDED
#include "tss_seeded_impl.h"
#endif

/* ---- The channel, which steps a party through its public face ---- */

#include "channel/encoding_impl.h"

#include "channel/crypto_impl.h"

#include "channel/hello_impl.h"

#include "channel/echo_impl.h"

#include "channel/confirmation_impl.h"

#include "channel/abort_impl.h"

#include "channel/frame_impl.h"

#include "channel/window_impl.h"

#include "channel/channel_impl.h"
