#ifndef TSS_CHANNEL_CHANNEL_IMPL_H
#define TSS_CHANNEL_CHANNEL_IMPL_H

#include "../secret.h"
#include "channel.h"

#include <stdlib.h>
#include <string.h>

/* ---- Names ---- */

const char *tss_channel_reason_name(tss_channel_reason reason) {
    static const char *const names[] = {
        "none", "hello-differs", "ephemeral-key", "equivocation", "ready-differs", "echo-differs", "payload", "party",
        "confirmation-differs", "aborted", "local", "internal",
    };
    const size_t i = (size_t)reason;
    return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}

const char *tss_channel_drop_name(tss_channel_drop drop) {
    static const char *const names[TSS_DROPS] = {
        "malformed", "version", "session", "sender", "receiver", "sequence", "repeat", "tag", "signature", "early", "full",
        "ack", "state", "transcript", "abort",
    };
    const size_t i = (size_t)drop;
    return i < TSS_DROPS ? names[i] : "unknown";
}

int tss_channel_libcrypto_locked(void) {
    return crypto_memory_is_ours();
}

/* ---- Pieces ---- */

static uint32_t bit(size_t index) {
    return UINT32_C(1) << index;
}

static uint32_t seat_of(const tss_channel *c, size_t index) {
    return c->ceremony.members[index].seat;
}

/* Is there a third party, to whom somebody could have told another version? Between two nobody signs broadcasts or readies, and a
 * difference is the peer's doing. docs/channel.md, "The argument", 8. */
static bool has_witness(const tss_channel *c) {
    return c->n > 2;
}

static tss_status dropped(tss_channel *c, tss_channel_drop cause) {
    c->drops[cause]++;
    return TSS_NOTHING;
}

static tss_status counted(tss_channel *c) {
    c->steps++;
    return TSS_OK;
}

static bool statement_keep(channel_statement *s, span bytes) {
    uint8_t *copy = malloc(bytes.len);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, bytes.at, bytes.len);
    free(s->data);
    *s = (channel_statement){.data = copy, .len = bytes.len};
    return true;
}

static bool statement_keep_signed(channel_statement *s, span body, const uint8_t *signature64) {
    uint8_t room[HELLO_LEN_MAX];
    writer w = writer_open(room, sizeof room);
    writer_bytes(&w, body);
    writer_bytes(&w, (span){signature64, CHANNEL_SIGNATURE_LEN});
    return w.ok && statement_keep(s, (span){room, w.len});
}

static span statement_body(const channel_statement *s) {
    span body = {0};
    const uint8_t *signature64;
    return s->data != NULL && statement_split(&body, &signature64, (span){s->data, s->len}) ? body : (span){0};
}

static void statement_free(channel_statement *s) {
    free(s->data);
    *s = (channel_statement){0};
}

static bool seat_signed(const tss_channel *c, size_t index, const char *tag, span body, const uint8_t *signature64) {
    uint8_t digest[32];
    return crypto_tagged(digest, tag, body) && crypto_identity_verify(c->members[index].identity, digest, signature64);
}

/* ---- Failing, and who is to blame ----
 *
 * FAILED is final, and what the fault says stays, but for one thing: where it names nobody, evidence that arrives later may. After
 * our own confirmation nothing fails any more: a fault is then only told. */

static bool may_fail(const tss_channel *c) {
    return c->state < TSS_CHANNEL_CONFIRMING;
}

static tss_channel_fault fault_of(tss_channel_reason reason, uint32_t by) {
    return (tss_channel_fault){.reason = reason, .by = by};
}

static void fault_blame(tss_channel_fault *fault, uint32_t seat) {
    fault->culprits[0] = seat;
    fault->culprits_len = 1;
}

/* The round whose messages the party waits for. */
static uint16_t awaited_round(const tss_channel *c) {
    uint16_t round = 0;
    uint16_t rounds = 0;
    tss_party_round(c->party, &round, &rounds);
    return round;
}

static void keys_free(tss_channel *c) {
    crypto_tools_close(&c->tools);
    secret_free(c->keys);
    c->keys = NULL;
}

/* Nothing is sealed or opened any more: the keys go, and the party is its owner's again. */
static void leave(tss_channel *c, tss_channel_state state) {
    if (c->party != NULL) {
        c->round = awaited_round(c);
        c->party = NULL;
    }
    keys_free(c);
    c->disputed = false;
    c->state = state;
}

static void fail(tss_channel *c, const tss_channel_fault *fault) {
    if (c->fault.reason == TSS_CHANNEL_NONE) {
        c->fault = *fault;
    }
    if (may_fail(c)) {
        leave(c, TSS_CHANNEL_FAILED);
    }
}

/* Fail, with one statement as the evidence: of the first fault alone, and never in the place of a conviction's. */
static void fail_shown(tss_channel *c, const tss_channel_fault *fault, const channel_statement *statement) {
    if (!c->convicted && c->fault.reason == TSS_CHANNEL_NONE) {
        (void)statement_keep(&c->evidence[0], (span){statement->data, statement->len});
    }
    fail(c, fault);
}

static void fail_internal(tss_channel *c, const char *detail) {
    tss_channel_fault fault = fault_of(TSS_CHANNEL_INTERNAL, 0);
    detail_write(fault.detail, "%s", detail);
    fail(c, &fault);
}

/* A signing whose party has sent its last message: whatever happens now, the others may have the signature. */
static bool awaits_signature(const tss_channel *c) {
    return c->party != NULL && c->ceremony.kind == TSS_SIGNING && awaited_round(c) == c->rounds;
}

/* The ceremony stands still; the parties have a while to find out who is to blame. */
static void dispute(tss_channel *c, const tss_channel_fault *fault) {
    if (!c->disputed && may_fail(c) && c->state != TSS_CHANNEL_FAILED) {
        c->disputed = true;
        c->dispute = *fault;
        c->dispute_ends_ms = c->now_ms + CHANNEL_DISPUTE_MS;
        c->last_show_ms = c->now_ms;
    }
}

/* A fault that names a peer. Once we hold the signature it ends nothing; while the others may have it, it waits for theirs: one party
 * must not be able to fail us alone in a signing that is done. */
static void fail_peer(tss_channel *c, const tss_channel_fault *fault) {
    if (c->has_signature) {
        c->fault = c->fault.reason == TSS_CHANNEL_NONE ? *fault : c->fault;
    } else if (awaits_signature(c)) {
        dispute(c, fault);
        if (c->dispute.culprits_len == 0 || fault->reason == TSS_CHANNEL_EQUIVOCATION) {
            c->dispute = *fault; /* it was open already, and knew less */
        }
    } else {
        fail(c, fault);
    }
}

/* Two statements of one seat that cannot both be honest: the one case in which a peer is convicted before everybody. */
static void convict(tss_channel *c, size_t index, span first, span second, const char *what) {
    if (c->convicted || c->fault.culprits_len != 0) {
        return;
    }
    c->convicted = true;
    tss_channel_fault fault = fault_of(TSS_CHANNEL_EQUIVOCATION, seat_of(c, index));
    fault_blame(&fault, seat_of(c, index));
    detail_write(fault.detail, "%s, in two versions", what);
    if (!statement_keep(&c->evidence[0], first) || !statement_keep(&c->evidence[1], second)) {
        statement_free(&c->evidence[0]);
        statement_free(&c->evidence[1]);
    }
    c->evidence[0].due = c->peers; /* so that all learn it, with the proof */
    c->evidence[1].due = c->peers;
    c->fault.reason = TSS_CHANNEL_NONE; /* an earlier fault named nobody */
    fail_peer(c, &fault);
}

static void fail_payload(tss_channel *c, size_t peer, const char *detail) {
    /* The tag was good, so the peer made it; nobody else need believe us. */
    tss_channel_fault fault = fault_of(TSS_CHANNEL_PAYLOAD, seat_of(c, peer));
    fault_blame(&fault, seat_of(c, peer));
    detail_write(fault.detail, "seat %u: %s", seat_of(c, peer), detail);
    fail_peer(c, &fault);
}

static void fail_confirmation(tss_channel *c, size_t index) {
    tss_channel_fault fault = fault_of(TSS_CHANNEL_CONFIRMATION_DIFFERS, seat_of(c, index));
    detail_write(fault.detail, "seat %u confirms another result", seat_of(c, index));
    fail_shown(c, &fault, &c->members[index].confirmation);
}

/* ---- Disputes: showing what one holds ---- */

static void show(tss_channel *c, span statement) {
    for (size_t i = 0; i < c->shown_len; i++) {
        if (span_equal_var((span){c->shown[i].data, c->shown[i].len}, statement)) {
            return;
        }
    }
    if (c->shown_len < CHANNEL_SHOWN_MAX && statement_keep(&c->shown[c->shown_len], statement)) {
        c->shown[c->shown_len++].due = c->peers;
    }
}

static const echo_round *echo_of(const tss_channel *c, uint16_t round) {
    return c->echoes != NULL && round >= 1 && round <= c->rounds ? &c->echoes[round - 1] : NULL;
}

/* The signed broadcast that we hold of a seat; BROADCAST_LEN bytes of room; no bytes if there is none. */
static span broadcast_of(const tss_channel *c, uint8_t *room, uint16_t round, size_t index) {
    const echo_round *echo = echo_of(c, round);
    if (!has_witness(c) || echo == NULL || (echo->present & bit(index)) == 0) {
        return (span){0};
    }
    writer w = writer_open(room, BROADCAST_LEN);
    broadcast_write(&w, c->ceremony.session16, seat_of(c, index), c->transcript32, round, echo->hashes32[index]);
    writer_bytes(&w, (span){echo->signatures64[index], CHANNEL_SIGNATURE_LEN});
    return (span){room, w.len};
}

/* Is the broadcast that we hold signed? Asked only when somebody's version differs: consistency is the echo's work, the signature
 * serves to convict, and checking each would cost more than all else here. What is not signed came under a good tag, so its sender
 * did it, and we know. docs/channel.md, "The argument", 6. */
static bool broadcast_is_signed(tss_channel *c, span statement, size_t index) {
    span body;
    const uint8_t *signature64;
    if (statement_split(&body, &signature64, statement)
        && crypto_ed25519_verify(c->members[index].ed25519_32, CHANNEL_TAG_BROADCAST, body, signature64)) {
        return true;
    }
    fail_payload(c, index, "a broadcast without its signature");
    return false;
}

static void show_broadcast(tss_channel *c, uint16_t round, size_t index) {
    uint8_t room[BROADCAST_LEN];
    const span statement = broadcast_of(c, room, round, index);
    if (statement.len != 0 && broadcast_is_signed(c, statement, index)) {
        show(c, statement);
    }
}

static void show_broadcasts(tss_channel *c, uint16_t round) {
    for (size_t i = 0; i < c->n; i++) {
        show_broadcast(c, round, i);
    }
}

/* ---- Sending ---- */

static bool send_sealed(tss_channel *c, size_t peer, const tss_message *message, span prefix) {
    window *w = &c->members[peer].window;
    const size_t len = FRAME_SEALED_HEADER_LEN + prefix.len + message->data_len + CRYPTO_TAG_LEN;
    uint8_t *frame = malloc(len);
    if (frame == NULL || w->sent_len > FRAME_SEQUENCE_MAX) {
        free(frame);
        return false;
    }
    writer header = writer_open(frame, len);
    frame_header_write(
        &header, c->ceremony.session16, c->ceremony.seat, seat_of(c, peer), w->sent_len, message->class_);
    const span payload = {message->data, message->data_len};
    if (!crypto_seal(
            &c->tools, frame + header.len, c->keys->send32[peer], w->sent_len, (span){frame, header.len}, prefix, payload)) {
        free(frame);
        return false;
    }
    return window_send(w, frame, len, message->round);
}

/* Remember our own broadcast as everybody else's, and sign it where anybody may be shown it. */
static bool note_broadcast(tss_channel *c, uint8_t *signature64, const tss_message *message) {
    echo_round *echo = &c->echoes[message->round - 1];
    uint8_t room[BROADCAST_BODY_LEN];
    writer w = writer_open(room, sizeof room);
    if ((echo->present & bit(c->self)) != 0) {
        return false; /* a protocol broadcasts once in a round */
    }
    if (!crypto_sha256_secret(&c->tools, echo->hashes32[c->self], (span){message->data, message->data_len})) {
        return false;
    }
    echo->present |= bit(c->self);
    if (!has_witness(c)) {
        return true;
    }
    broadcast_write(
        &w, c->ceremony.session16, c->ceremony.seat, c->transcript32, message->round, echo->hashes32[c->self]);
    if (!crypto_ed25519_sign(
            signature64, c->keys->ed25519_seed32, c->members[c->self].ed25519_32, CHANNEL_TAG_BROADCAST, (span){room, w.len})) {
        return false;
    }
    memcpy(echo->signatures64[c->self], signature64, CHANNEL_SIGNATURE_LEN);
    return true;
}

static bool send_message(tss_channel *c, const tss_message *message) {
    uint8_t prefix[FRAME_PREFIX_MAX];
    uint8_t signature64[CHANNEL_SIGNATURE_LEN];
    const bool broadcast = message->class_ == TSS_CLASS_BROADCAST;
    if (message->round < 1 || message->round > c->rounds || (broadcast && !note_broadcast(c, signature64, message))) {
        return false;
    }
    span echo = {0};
    if (message->round > 1) {
        echo = (span){c->echoes[message->round - 2].hashes32[0], 32 * c->n};
    }
    writer w = writer_open(prefix, sizeof prefix);
    frame_prefix_write(&w, message->round, echo, broadcast && has_witness(c) ? signature64 : NULL);
    const size_t only = broadcast ? SIZE_MAX : ceremony_index(&c->ceremony, message->to);
    if (!broadcast && (only == SIZE_MAX || only == c->self)) {
        return false;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (i != c->self && (broadcast || i == only) && !send_sealed(c, i, message, (span){prefix, w.len})) {
            return false;
        }
    }
    return true;
}

/* ---- Stepping the party ---- */

static void fail_party(tss_channel *c) {
    tss_fault party;
    tss_party_fault(c->party, &party);
    tss_channel_fault fault = fault_of(TSS_CHANNEL_PARTY, 0);
    fault.party = party;
    fault.culprits_len = party.culprits_len;
    memcpy(fault.culprits, party.culprits, sizeof fault.culprits);
    detail_write(fault.detail, "round %u, %s: %s", party.round, tss_reason_name(party.reason), party.detail);
    if (party.reason == TSS_REASON_INTERNAL) {
        fail(c, &fault);
        return;
    }
    if (fault.culprits_len != 0 || !has_witness(c)) {
        fail_peer(c, &fault);
        return;
    }
    /* Nobody named: perhaps somebody sent two versions of a broadcast that no echo has covered yet. And in a signing a peer's
     * signature may still arrive. */
    dispute(c, &fault);
    const uint16_t round = awaited_round(c);
    show_broadcasts(c, round);
    show_broadcasts(c, (uint16_t)(round - 1));
}

static void result_reached(tss_channel *c) {
    const bool signing = c->ceremony.kind == TSS_SIGNING;
    c->has_signature = signing && tss_signing_result(c->party, c->signature64, &c->recovery_id) == TSS_OK;
    if (signing && !c->has_signature) {
        fail_internal(c, "a finished signing without a signature");
    } else {
        leave(c, TSS_CHANNEL_RESULT); /* what is still to be sent is sealed already */
    }
}

/* Hand on what the party has to send. False: it is done, or has failed. */
static bool party_drain(tss_channel *c) {
    tss_message message;
    while (tss_party_outgoing(c->party, &message) == TSS_OK) {
        if (!send_message(c, &message)) {
            fail_internal(c, "a message could not be sealed");
            return false;
        }
    }
    const tss_state state = tss_party_state(c->party);
    if (state == TSS_DONE) {
        result_reached(c);
    } else if (state == TSS_FAILED) {
        fail_party(c);
    }
    return state == TSS_WANTS;
}

/* Does the peer hold the broadcasts of the round before that we hold? False: failed, or a dispute is open. */
static bool echo_agrees(tss_channel *c, size_t peer, const frame_payload *payload) {
    reader r = reader_open(payload->echo);
    for (size_t i = 0; i < payload->echo_len; i++) {
        const span theirs = reader_take(&r, 32);
        if (!span_equal_var(theirs, (span){c->echoes[payload->round - 2].hashes32[i], 32})) {
            if (!has_witness(c)) {
                /* Its copies are what we sealed, and ours what it sealed: it knows better. */
                fail_payload(c, peer, "an echo of what was not broadcast");
                return false;
            }
            tss_channel_fault fault = fault_of(TSS_CHANNEL_ECHO_DIFFERS, seat_of(c, peer));
            detail_write(fault.detail, "round %u: seats %u and %u hold different broadcasts of seat %u",
                         payload->round - 1u, c->ceremony.seat, seat_of(c, peer), seat_of(c, i));
            dispute(c, &fault);
            show_broadcast(c, (uint16_t)(payload->round - 1), i);
            return false;
        }
    }
    return true;
}

/* Remember a broadcast, and its signature if it has one. False: failed. */
static bool take_broadcast(tss_channel *c, size_t peer, const frame_payload *payload) {
    echo_round *echo = &c->echoes[payload->round - 1];
    if ((echo->present & bit(peer)) != 0) {
        fail_payload(c, peer, "a second broadcast in one round");
        return false;
    }
    if (!crypto_sha256_secret(&c->tools, echo->hashes32[peer], payload->message)) {
        fail_internal(c, "a broadcast could not be hashed");
        return false;
    }
    if (payload->signature64 != NULL) {
        memcpy(echo->signatures64[peer], payload->signature64, CHANNEL_SIGNATURE_LEN);
    }
    echo->present |= bit(peer);
    return true;
}

static void deliver_payload(tss_channel *c, size_t peer, uint8_t class_, const frame_payload *payload) {
    if (payload->echo_len != (payload->round > 1 ? c->n : 0)) {
        fail_payload(c, peer, "an echo of the wrong length");
        return;
    }
    if (!echo_agrees(c, peer, payload)) {
        return;
    }
    if (class_ == TSS_CLASS_BROADCAST && !take_broadcast(c, peer, payload)) {
        return;
    }
    const tss_status status = tss_party_receive(
        c->party, seat_of(c, peer), (tss_class)class_, payload->message.at, payload->message.len);
    if (status == TSS_FAULT) {
        fail_party(c);
    } else if (status != TSS_OK && status != TSS_REPEAT) {
        fail_internal(c, "the party refused a message");
    }
}

static void deliver_opened(tss_channel *c, size_t peer, uint8_t class_, span opened) {
    frame_payload payload;
    if (frame_payload_read(&payload, opened, class_ == TSS_CLASS_BROADCAST && has_witness(c))) {
        deliver_payload(c, peer, class_, &payload);
    } else {
        fail_payload(c, peer, "a payload of no known layout");
    }
}

/* Open a frame that was held and give it to the party. False: no room in the arena, try again later. */
static bool deliver_held(tss_channel *c, size_t peer, const window_frame *frame) {
    reader r = reader_open((span){frame->data, frame->len});
    const frame_header header = frame_header_read(&r);
    const span sealed = r.left;
    uint8_t *opened = secret_alloc(sealed.len);
    if (opened == NULL) {
        return false;
    }
    const bool genuine = crypto_open(
        &c->tools, opened, c->keys->receive32[peer], header.sequence, (span){frame->data, FRAME_SEALED_HEADER_LEN}, sealed);
    if (genuine) {
        deliver_opened(c, peer, header.class_, (span){opened, sealed.len - CRYPTO_TAG_LEN});
    }
    secret_free(opened);
    return genuine; /* it was when it was held: if it is not, this is memory */
}

static bool may_deliver(const tss_channel *c) {
    return c->state == TSS_CHANNEL_RUNNING && !c->disputed;
}

/* Does the party wait for the frame that is next in order from a peer? */
static bool is_due(tss_channel *c, size_t peer, uint16_t round) {
    const uint16_t awaited = awaited_round(c);
    if (round < awaited || round > awaited + 1u || round > c->rounds) {
        /* Nobody can be further ahead than one round: that takes a message of ours. */
        fail_payload(c, peer, "a message of a round that is over, or far ahead");
    }
    return round == awaited; /* of the round after it the echo cannot be compared yet */
}

/* What the party answers to a message. */
static void answer(tss_channel *c) {
    if (may_deliver(c)) {
        (void)party_drain(c);
    }
}

/* Deliver from one peer what the party waits for. True: something was delivered. */
static bool pump_peer(tss_channel *c, size_t peer) {
    bool delivered = false;
    const window_frame *frame;
    while (may_deliver(c) && (frame = window_next(&c->members[peer].window)) != NULL && is_due(c, peer, frame->round)
           && deliver_held(c, peer, frame)) {
        window_delivered(&c->members[peer].window);
        delivered = true;
        answer(c);
    }
    return delivered;
}

static void pump(tss_channel *c) {
    bool delivered = true;
    while (delivered) {
        delivered = false;
        for (size_t i = 0; i < c->n; i++) {
            delivered = (i != c->self && pump_peer(c, i)) || delivered;
        }
    }
}

static void pump_inside(void *channel) {
    pump(channel);
}

/* ---- Agreeing ---- */

static bool transcript_compute(tss_channel *c) {
    span parts[1 + 2 * TSS_PARTIES_MAX];
    uint8_t lengths[TSS_PARTIES_MAX][4];
    parts[0] = (span){(const uint8_t *)CHANNEL_TAG_TRANSCRIPT, sizeof CHANNEL_TAG_TRANSCRIPT};
    for (size_t i = 0; i < c->n; i++) {
        const span body = statement_body(&c->members[i].hello);
        writer w = writer_open(lengths[i], sizeof lengths[i]);
        writer_u32(&w, (uint32_t)body.len);
        parts[1 + 2 * i] = (span){lengths[i], sizeof lengths[i]};
        parts[2 + 2 * i] = body;
        if (!crypto_sha256(c->hello_hashes32[i], &body, 1)) {
            return false;
        }
    }
    return crypto_sha256(c->transcript32, parts, 1 + 2 * c->n);
}

/* No two seats share an ephemeral key: else one reads, or speaks, for the other. Nobody can tell who copied. */
static bool ephemeral_keys_distinct(tss_channel *c) {
    for (size_t i = 0; i < c->n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (memcmp(c->members[i].x25519_32, c->members[j].x25519_32, 32) == 0
                || (has_witness(c) && memcmp(c->members[i].ed25519_32, c->members[j].ed25519_32, 32) == 0)) {
                tss_channel_fault fault = fault_of(TSS_CHANNEL_EPHEMERAL_KEY, 0);
                detail_write(
                    fault.detail, "seats %u and %u have the same ephemeral key", seat_of(c, j), seat_of(c, i));
                fail(c, &fault);
                return false;
            }
        }
    }
    return true;
}

static void fail_low_order(tss_channel *c, size_t index) {
    tss_channel_fault fault = fault_of(TSS_CHANNEL_EPHEMERAL_KEY, seat_of(c, index));
    fault_blame(&fault, seat_of(c, index));
    detail_write(fault.detail, "seat %u: an ephemeral key of low order", seat_of(c, index));
    fail_shown(c, &fault, &c->members[index].hello);
}

/* The pairwise keys of all peers. False: it has failed. */
static bool keys_agree(tss_channel *c) {
    for (size_t i = 0; i < c->n; i++) {
        crypto_agreement outcome = CRYPTO_AGREED;
        if (i != c->self) {
            outcome = has_witness(c) && crypto_ed25519_is_small(c->members[i].ed25519_32)
                ? CRYPTO_LOW_ORDER
                : crypto_agree(c->keys->send32[i], c->keys->receive32[i], c->keys->x25519_private32,
                               c->members[c->self].x25519_32, c->members[i].x25519_32, c->transcript32, c->ceremony.seat, seat_of(c, i));
        }
        if (outcome == CRYPTO_LOW_ORDER) {
            fail_low_order(c, i);
            return false;
        }
        if (outcome == CRYPTO_BROKEN) {
            fail_internal(c, "no keys could be agreed");
            return false;
        }
    }
    secret_wipe(c->keys->x25519_private32, sizeof c->keys->x25519_private32);
    if (!crypto_tools_open(&c->tools)) {
        fail_internal(c, "no room for the keys' contexts");
        return false;
    }
    return true;
}

/* Sequence 0 to each peer. */
static bool ready_send(tss_channel *c) {
    uint8_t room[CHANNEL_HEADER_LEN + 2 + 32 * TSS_PARTIES_MAX + CHANNEL_SIGNATURE_LEN];
    writer w = writer_open(room, sizeof room);
    ready_write(&w, &c->ceremony, (const uint8_t(*)[32])c->hello_hashes32);
    if (has_witness(c)) {
        uint8_t signature64[CHANNEL_SIGNATURE_LEN];
        if (!crypto_ed25519_sign(signature64, c->keys->ed25519_seed32, c->members[c->self].ed25519_32, CHANNEL_TAG_READY,
                                 (span){room, w.len})) {
            return false;
        }
        writer_bytes(&w, (span){signature64, sizeof signature64});
    }
    for (size_t i = 0; i < c->n; i++) {
        if (i != c->self) {
            channel_statement copy = {0};
            if (!statement_keep(&copy, (span){room, w.len})
                || !window_send(&c->members[i].window, copy.data, copy.len, 0)) {
                return false;
            }
        }
    }
    return true;
}

static tss_status receive_frame(tss_channel *c, span frame);

static void agree_inside(void *argument) {
    tss_channel *c = argument;
    if (!ephemeral_keys_distinct(c)) {
        return;
    }
    if (!transcript_compute(c)) {
        fail_internal(c, "no transcript");
        return;
    }
    c->has_transcript = true;
    if (!keys_agree(c)) {
        return;
    }
    c->state = TSS_CHANNEL_AGREED;
    if (!ready_send(c)) {
        fail_internal(c, "no ready");
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        window *w = &c->members[i].window;
        for (size_t k = 0; k < w->early_len; k++) {
            (void)receive_frame(c, (span){w->early[k].data, w->early[k].len});
            free(w->early[k].data);
        }
        w->early_len = 0;
    }
}

/* When the last hello is in, and ours is out. Where there is no room for a stack, the next tick tries again. */
static void agree(tss_channel *c) {
    if (!c->started || c->state != TSS_CHANNEL_HELLO) {
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (c->members[i].hello.data == NULL) {
            return;
        }
    }
    (void)!secret_call(agree_inside, c);
}

/* ---- Receiving, by kind ----
 *
 * Statements and acks are public: only what a sealed frame, or the last hello, sets off comes near keys or plaintext, and runs on the
 * secret stack. */

static tss_status receive_hello(tss_channel *c, size_t from, span frame) {
    channel_peer *peer = &c->members[from];
    span body;
    const uint8_t *signature64;
    channel_hello hello;
    if (frame.len > HELLO_LEN_MAX || !statement_split(&body, &signature64, frame)) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    /* The same body under another signature is the same hello: ECDSA has many signatures for one statement. */
    if (peer->hello.data != NULL && span_equal_var(body, statement_body(&peer->hello))) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    if (!seat_signed(c, from, CHANNEL_TAG_HELLO, body, signature64)) {
        return dropped(c, TSS_DROP_SIGNATURE);
    }
    if (peer->hello.data != NULL) {
        convict(c, from, (span){peer->hello.data, peer->hello.len}, frame, "a hello");
        return counted(c);
    }
    if (!statement_keep(&peer->hello, frame)) {
        return dropped(c, TSS_DROP_FULL);
    }
    tss_channel_fault fault = fault_of(TSS_CHANNEL_HELLO_DIFFERS, seat_of(c, from));
    const uint8_t version = body.at[0];
    const bool readable = version == CHANNEL_VERSION && hello_read(&hello, body);
    if (version != CHANNEL_VERSION) {
        (void)number_differs(fault.detail, "channel version", CHANNEL_VERSION, version);
    } else if (!readable) {
        detail_write(fault.detail, "a signed hello that does not decode");
    }
    if (!readable || hello_differs(fault.detail, &hello, &c->ceremony, from)) {
        fail_shown(c, &fault, &peer->hello);
        return counted(c);
    }
    memcpy(peer->x25519_32, hello.x25519.at, 32);
    memcpy(peer->ed25519_32, hello.ed25519.at, 32);
    agree(c);
    return counted(c);
}

/* Before there are keys, and when they are of no more use. True: *status says what became of the frame. */
static bool receive_without_keys(tss_channel *c, size_t from, span frame, tss_status *status) {
    if (c->state == TSS_CHANNEL_HELLO) {
        *status = window_keep_early(&c->members[from].window, frame) ? TSS_OK : dropped(c, TSS_DROP_EARLY);
        return true;
    }
    if (c->state != TSS_CHANNEL_AGREED && c->state != TSS_CHANNEL_RUNNING) {
        *status = dropped(c, TSS_DROP_STATE);
        return true;
    }
    return false;
}

/* A ready that lists another hello of a seat than we hold. Here its signature matters, so here it is checked: a list that is ours says
 * nothing that a stranger could not say, and the peer's first frame proves. docs/channel.md, "The argument", 7. */
static tss_status receive_other_ready(tss_channel *c, size_t from, size_t subject, span body, const uint8_t *signature64) {
    const channel_peer *peer = &c->members[from];
    if (peer->heard) {
        return dropped(c, TSS_DROP_REPEAT); /* it sealed under T: it holds our hellos */
    }
    if (!has_witness(c)) {
        return dropped(c, TSS_DROP_TRANSCRIPT);
    }
    if (!crypto_ed25519_verify(peer->ed25519_32, CHANNEL_TAG_READY, body, signature64)) {
        return dropped(c, TSS_DROP_SIGNATURE);
    }
    tss_channel_fault fault = fault_of(TSS_CHANNEL_READY_DIFFERS, seat_of(c, from));
    detail_write(fault.detail, "seats %u and %u hold different hellos of seat %u", c->ceremony.seat, seat_of(c, from),
                 seat_of(c, subject));
    const channel_statement *hello = &c->members[subject].hello;
    dispute(c, &fault);
    show(c, (span){hello->data, hello->len});
    return counted(c);
}

static tss_status receive_ready(tss_channel *c, size_t from, span frame) {
    channel_peer *peer = &c->members[from];
    channel_header header;
    uint8_t hashes[TSS_PARTIES_MAX][32];
    span body = frame;
    const uint8_t *signature64 = NULL;
    tss_status status;
    if (frame.len > HELLO_LEN_MAX || (has_witness(c) && !statement_split(&body, &signature64, frame))
        || !ready_read(&header, hashes, c->n, body)) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    if (receive_without_keys(c, from, frame, &status)) {
        return status;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (memcmp(hashes[i], c->hello_hashes32[i], 32) != 0) {
            return receive_other_ready(c, from, i, body, signature64);
        }
    }
    if (peer->window.next != 0) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    window_begin(&peer->window);
    if (c->state == TSS_CHANNEL_RUNNING) {
        (void)!secret_call(pump_inside, c); /* no room for a stack: the next tick delivers what is held */
    }
    return counted(c);
}

/* A sealed frame whose header has been looked at. */
typedef struct sealed_call {
    tss_channel *channel;
    size_t from;
    span frame;
    frame_header header;
    span sealed;
    tss_status status;
} sealed_call;

static tss_status open_sealed(tss_channel *c, size_t from, span frame, const frame_header *header, span sealed) {
    window *w = &c->members[from].window;
    uint8_t *opened = window_has_room(w, header->sequence, frame.len) ? secret_alloc(sealed.len) : NULL;
    if (opened == NULL) {
        return dropped(c, TSS_DROP_FULL);
    }
    /* Only genuine frames are held, so that nobody else's can take their place. */
    const span inside = {opened, sealed.len - CRYPTO_TAG_LEN};
    if (!crypto_open(
            &c->tools, opened, c->keys->receive32[from], header->sequence, (span){frame.at, FRAME_SEALED_HEADER_LEN}, sealed)) {
        secret_free(opened);
        return dropped(c, TSS_DROP_TAG);
    }
    c->members[from].heard = true;
    reader first = reader_open(inside);
    uint16_t round = reader_u16(&first);
    DECLASSIFY(&round, sizeof round); /* whom a party waits for is visible from outside */
    if (header->sequence == w->next && may_deliver(c) && is_due(c, from, round)) {
        deliver_opened(c, from, header->class_, inside);
        secret_free(opened);
        window_pass(w);
        answer(c);
    } else {
        secret_free(opened);
        if (!window_hold(w, header->sequence, frame, round)) {
            return dropped(c, TSS_DROP_FULL);
        }
    }
    pump(c);
    return counted(c);
}

static void open_sealed_inside(void *argument) {
    sealed_call *call = argument;
    call->status = open_sealed(call->channel, call->from, call->frame, &call->header, call->sealed);
}

static tss_status receive_sealed(tss_channel *c, size_t from, span frame) {
    window *w = &c->members[from].window;
    reader r = reader_open(frame);
    const frame_header header = frame_header_read(&r);
    tss_status status;
    if (!r.ok || r.left.len < CRYPTO_TAG_LEN || frame.len > TSS_CHANNEL_FRAME_MAX
        || (header.class_ != TSS_CLASS_BROADCAST && header.class_ != TSS_CLASS_DIRECT)) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    if (header.to != c->ceremony.seat) {
        return dropped(c, TSS_DROP_RECEIVER);
    }
    if (header.sequence == 0 || header.sequence > FRAME_SEQUENCE_MAX) {
        return dropped(c, TSS_DROP_SEQUENCE);
    }
    if (receive_without_keys(c, from, frame, &status)) {
        return status;
    }
    if (window_has(w, header.sequence)) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    if (header.sequence >= w->next + WINDOW_LEN) {
        return dropped(c, TSS_DROP_SEQUENCE);
    }
    sealed_call call = {.channel = c, .from = from, .frame = frame, .header = header, .sealed = r.left};
    /* No room for a stack: it will be sent again. */
    return secret_call(open_sealed_inside, &call) ? call.status : dropped(c, TSS_DROP_FULL);
}

/* A signature that another seat confirms: does it sign our hash under our key? Then it is everybody's. */
static bool signature_adopt(tss_channel *c, const uint8_t *signature64) {
    point key;
    point recovered;
    if (c->has_signature && memcmp(signature64, c->signature64, sizeof c->signature64) == 0) {
        return true;
    }
    if (!point_parse(&key, c->ceremony.public33, 33) || !ecdsa_verify(signature64, c->ceremony.digest32, &key)) {
        return false;
    }
    scalar s;
    if (scalar_set_bytes(&s, signature64 + 32) != 1 || scalar_is_high(&s) != 0) {
        return false;
    }
    for (uint8_t id = 0; id < 4 && !c->has_signature; id++) {
        if (ecdsa_recover(&recovered, signature64, id, c->ceremony.digest32) && point_equal(&recovered, &key)) {
            memcpy(c->signature64, signature64, 64);
            c->recovery_id = id;
            c->has_signature = true;
        }
    }
    return c->has_signature;
}

static tss_status receive_signature(tss_channel *c, size_t from, span frame, const tss_confirmation *confirmation) {
    channel_peer *peer = &c->members[from];
    if (memcmp(confirmation->transcript32, c->transcript32, 32) != 0 || !signature_adopt(c, confirmation->result)) {
        return dropped(c, TSS_DROP_TRANSCRIPT);
    }
    if (!statement_keep(&peer->confirmation, frame)) {
        return dropped(c, TSS_DROP_FULL);
    }
    if (c->state == TSS_CHANNEL_AGREED || c->state == TSS_CHANNEL_RUNNING) {
        if (c->disputed && c->dispute.culprits_len != 0) {
            c->fault = c->dispute;
        }
        leave(c, TSS_CHANNEL_RESULT); /* ours to confirm in turn: so the others learn that we lack nothing any more */
    }
    return counted(c);
}

static span own_body(const tss_channel *c) {
    return (span){c->body, c->body_len};
}

static bool confirmation_counts(const tss_channel *c, size_t index) {
    const channel_statement *s = &c->members[index].confirmation;
    return s->data != NULL && c->body_len != 0 && confirmations_agree(statement_body(s), own_body(c));
}

/* With our own, and all equal: the share counts, everywhere, from now on. */
static void complete_if_all(tss_channel *c) {
    for (size_t i = 0; i < c->n; i++) {
        if (!confirmation_counts(c, i)) {
            return;
        }
    }
    if (c->state == TSS_CHANNEL_CONFIRMING) {
        c->state = TSS_CHANNEL_COMPLETE;
    }
}

/* A confirmation that cannot be reconciled with ours: show the broadcasts that no echo but this one covers. */
static void confirmation_conflict(tss_channel *c, size_t index) {
    show_broadcasts(c, c->rounds);
    fail_confirmation(c, index);
}

static tss_status receive_confirmation(tss_channel *c, size_t from, span frame) {
    channel_peer *peer = &c->members[from];
    tss_confirmation confirmation;
    span body;
    const uint8_t *signature64;
    if (!statement_split(&body, &signature64, frame) || !confirmation_parse(&confirmation, body)
        || confirmation.kind != c->ceremony.kind) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    if (c->state == TSS_CHANNEL_HELLO || c->state == TSS_CHANNEL_FAILED) {
        return dropped(c, TSS_DROP_STATE);
    }
    if (peer->confirmation.data != NULL && span_equal_var(body, statement_body(&peer->confirmation))) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    const bool signing = c->ceremony.kind == TSS_SIGNING;
    /* Between two, of the signature that we hold already, only the network can make one in the peer's name, and all that it does is
     * to end our answers to the peer. Before that it would be the result: an older signature of the same hash must not be. */
    const bool held = c->has_signature && memcmp(confirmation.result, c->signature64, sizeof c->signature64) == 0;
    if (!(signing && !has_witness(c) && held) && !seat_signed(c, from, CHANNEL_TAG_CONFIRM, body, signature64)) {
        return dropped(c, TSS_DROP_SIGNATURE);
    }
    if (signing) {
        return peer->confirmation.data != NULL ? dropped(c, TSS_DROP_REPEAT)
                                               : receive_signature(c, from, frame, &confirmation);
    }
    const bool second = peer->confirmation.data != NULL;
    if (second) {
        convict(c, from, (span){peer->confirmation.data, peer->confirmation.len}, frame, "a confirmation");
    }
    /* One that agrees with ours counts even so: others may hold no other, and must not be alone with an active share. */
    if ((!second || !confirmation_counts(c, from)) && !statement_keep(&peer->confirmation, frame)) {
        return dropped(c, TSS_DROP_FULL);
    }
    if (c->body_len != 0 && !confirmation_counts(c, from)) {
        confirmation_conflict(c, from);
    }
    complete_if_all(c);
    return counted(c);
}

static tss_status receive_abort(tss_channel *c, size_t from, span frame) {
    channel_peer *peer = &c->members[from];
    tss_abort notice;
    span body;
    const uint8_t *signature64;
    if (!statement_split(&body, &signature64, frame) || !abort_parse(&notice, body)
        || strcmp(notice.party_id, c->ceremony.members[from].party_id) != 0) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    if (peer->abort.data != NULL) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    if (!seat_signed(c, from, CHANNEL_TAG_ABORT, body, signature64)) {
        return dropped(c, TSS_DROP_SIGNATURE);
    }
    if (peer->confirmation.data != NULL) {
        return dropped(c, TSS_DROP_ABORT);
    }
    if (!statement_keep(&peer->abort, frame)) {
        return dropped(c, TSS_DROP_FULL);
    }
    tss_channel_fault fault = fault_of(TSS_CHANNEL_ABORTED, notice.seat);
    detail_write(fault.detail, "%s ended it: %s", notice.party_id, notice.reason);
    fault.hearsay_len = notice.culprits_len;
    memcpy(fault.hearsay, notice.culprits, sizeof fault.hearsay);
    if (c->disputed && c->dispute.hearsay_len == 0) {
        c->dispute.hearsay_len = notice.culprits_len;
        memcpy(c->dispute.hearsay, notice.culprits, sizeof c->dispute.hearsay);
    } else if (awaits_signature(c)) {
        dispute(c, &fault);
    } else if (!c->disputed && !c->has_signature && c->state != TSS_CHANNEL_COMPLETE) {
        fail(c, &fault);
    }
    if (c->abort.data == NULL && (c->disputed || c->state == TSS_CHANNEL_FAILED)) {
        (void)statement_keep(&c->abort, frame); /* others may learn it from us */
    }
    return counted(c);
}

static tss_status receive_broadcast(tss_channel *c, size_t subject, span frame) {
    channel_broadcast broadcast;
    span body;
    const uint8_t *signature64;
    uint8_t room[BROADCAST_LEN];
    if (!statement_split(&body, &signature64, frame) || !broadcast_read(&broadcast, body)) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    const span ours = broadcast_of(c, room, broadcast.round, subject);
    if (ours.len == 0) {
        return dropped(c, TSS_DROP_STATE);
    }
    if (memcmp(broadcast.transcript32, c->transcript32, 32) != 0) {
        return dropped(c, TSS_DROP_TRANSCRIPT);
    }
    if (memcmp(broadcast.hash32, c->echoes[broadcast.round - 1].hashes32[subject], 32) == 0) {
        return dropped(c, TSS_DROP_REPEAT);
    }
    if (!crypto_ed25519_verify(c->members[subject].ed25519_32, CHANNEL_TAG_BROADCAST, body, signature64)) {
        return dropped(c, TSS_DROP_SIGNATURE);
    }
    if (broadcast_is_signed(c, ours, subject)) {
        convict(c, subject, ours, frame, "a broadcast");
    }
    return counted(c);
}

/* Once in CHANNEL_RESEND_MS a peer may make us send something again. */
static bool may_answer(const tss_channel *c, channel_peer *peer) {
    if (peer->answered && c->now_ms - peer->last_answer_ms < CHANNEL_RESEND_MS) {
        return false;
    }
    peer->answered = true;
    peer->last_answer_ms = c->now_ms;
    return true;
}

static tss_status receive_ack(tss_channel *c, size_t from, span frame) {
    channel_peer *peer = &c->members[from];
    reader r = reader_open(frame);
    (void)reader_header(&r);
    const uint32_t to = reader_u32(&r);
    const uint64_t wanted = reader_u64(&r);
    if (!reader_done(&r)) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    if (to != c->ceremony.seat) {
        return dropped(c, TSS_DROP_RECEIVER);
    }
    if (c->state == TSS_CHANNEL_HELLO || c->state == TSS_CHANNEL_FAILED) {
        return dropped(c, TSS_DROP_STATE);
    }
    if (wanted > peer->window.sent_len || !may_answer(c, peer)) {
        return dropped(c, TSS_DROP_ACK);
    }
    if (wanted < peer->window.cursor) {
        peer->window.cursor = (size_t)wanted;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (i != from) {
            c->members[i].confirmation.due |= bit(from);
        }
    }
    return TSS_OK;
}

/* A failed end has one thing left to say, to whoever has not heard it. */
static void answer_with_abort(tss_channel *c, size_t from) {
    channel_peer *peer = &c->members[from];
    if (peer->abort.data != NULL || !may_answer(c, peer)) {
        return;
    }
    c->abort.due |= bit(from);
    for (size_t i = 0; c->convicted && i < 2; i++) {
        c->evidence[i].due |= bit(from);
    }
    for (size_t i = 0; i < c->shown_len; i++) {
        c->shown[i].due |= bit(from);
    }
}

static tss_status receive_frame(tss_channel *c, span frame) {
    reader r = reader_open(frame);
    const channel_header header = reader_header(&r);
    if (!r.ok) {
        return dropped(c, TSS_DROP_MALFORMED);
    }
    /* A hello of another version is read as far as its signature: so the operators learn of it, and only from the peer. */
    if (header.version != CHANNEL_VERSION && header.kind != TSS_FRAME_HELLO) {
        return dropped(c, TSS_DROP_VERSION);
    }
    if (memcmp(header.session16, c->ceremony.session16, sizeof header.session16) != 0) {
        return dropped(c, TSS_DROP_SESSION);
    }
    const size_t from = ceremony_index(&c->ceremony, header.from);
    if (from == SIZE_MAX || from == c->self) {
        return dropped(c, TSS_DROP_SENDER);
    }
    if (c->state == TSS_CHANNEL_FAILED && header.kind <= TSS_FRAME_ACK) {
        answer_with_abort(c, from);
    }
    switch (header.kind) {
    case TSS_FRAME_HELLO:
        return receive_hello(c, from, frame);
    case TSS_FRAME_READY:
        return receive_ready(c, from, frame);
    case TSS_FRAME_SEALED:
        return receive_sealed(c, from, frame);
    case TSS_FRAME_ACK:
        return receive_ack(c, from, frame);
    case TSS_FRAME_CONFIRM:
        return receive_confirmation(c, from, frame);
    case TSS_FRAME_ABORT:
        return receive_abort(c, from, frame);
    case TSS_FRAME_BROADCAST:
        return receive_broadcast(c, from, frame);
    default:
        return dropped(c, TSS_DROP_MALFORMED);
    }
}

/* ---- Time ---- */

static void clock_set(tss_channel *c, uint64_t now_ms) {
    if (now_ms > c->now_ms) {
        c->now_ms = now_ms;
    }
}

static void hello_again(tss_channel *c) {
    c->last_hello_ms = c->now_ms;
    for (size_t i = 0; i < c->n; i++) {
        /* A peer's first frame shows that it has ours. A ready does not: anybody can make one that lists what we all hold. */
        if (i != c->self && !c->members[i].heard) {
            c->members[c->self].hello.due |= bit(i);
        }
    }
}

static void acks_due(tss_channel *c) {
    for (size_t i = 0; i < c->n; i++) {
        c->members[i].ack_due = i != c->self;
    }
}

static bool wants_more(const tss_channel *c) {
    return c->started && c->state >= TSS_CHANNEL_AGREED && c->state <= TSS_CHANNEL_CONFIRMING;
}

static void dispute_tick(tss_channel *c) {
    if (c->now_ms >= c->dispute_ends_ms) {
        fail(c, &c->dispute);
    } else if (c->now_ms - c->last_show_ms >= CHANNEL_REPEAT_MS) {
        c->last_show_ms = c->now_ms;
        for (size_t i = 0; i < c->shown_len; i++) {
            c->shown[i].due = c->peers;
        }
    }
}

static void time_passes(tss_channel *c) {
    if (!c->ticked || c->steps != c->seen_steps) {
        c->stalled_since_ms = c->now_ms;
        c->seen_steps = c->steps;
        if (!c->ticked) {
            c->last_hello_ms = c->now_ms;
        }
        c->ticked = true;
    }
    if (c->disputed) {
        dispute_tick(c);
    }
    if (c->started && c->state <= TSS_CHANNEL_RUNNING && c->now_ms - c->last_hello_ms >= CHANNEL_REPEAT_MS) {
        hello_again(c);
    }
    if (wants_more(c) && c->now_ms - c->stalled_since_ms >= CHANNEL_REPEAT_MS) {
        c->stalled_since_ms = c->now_ms;
        acks_due(c);
    }
    agree(c); /* what found no room in the arena may find it now */
    pump(c);
}

/* ---- The face ---- */

void tss_channel_free(tss_channel *channel) {
    if (channel == NULL) {
        return;
    }
    keys_free(channel);
    for (size_t i = 0; i < TSS_PARTIES_MAX; i++) {
        channel_peer *peer = &channel->members[i];
        crypto_identity_close(peer->identity);
        statement_free(&peer->hello);
        statement_free(&peer->confirmation);
        statement_free(&peer->abort);
        window_free(&peer->window);
    }
    for (size_t i = 0; i < channel->shown_len; i++) {
        statement_free(&channel->shown[i]);
    }
    statement_free(&channel->evidence[0]);
    statement_free(&channel->evidence[1]);
    statement_free(&channel->abort);
    free(channel->echoes);
    free(channel->handed);
    free(channel);
}

/* Our hello, with room for its signature. */
static bool own_hello_make(tss_channel *c) {
    static const uint8_t unsigned64[CHANNEL_SIGNATURE_LEN] = {0};
    uint8_t room[HELLO_LEN_MAX];
    channel_peer *self = &c->members[c->self];
    writer w = writer_open(room, sizeof room);
    hello_write(&w, &c->ceremony, self->x25519_32, self->ed25519_32);
    return w.ok && statement_keep_signed(&self->hello, (span){room, w.len}, unsigned64);
}

/* keys are in place: the private halves of our ephemeral keys. */
static bool channel_prepare(tss_channel *c) {
    channel_peer *self = &c->members[c->self];
    return crypto_x25519_public(self->x25519_32, c->keys->x25519_private32)
        && (!has_witness(c) || crypto_ed25519_public(self->ed25519_32, c->keys->ed25519_seed32)) && committee_digest(c->committee32, &c->ceremony) && own_hello_make(c);
}

static tss_channel *channel_new(const tss_ceremony *ceremony) {
    tss_channel *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->ceremony = *ceremony;
    c->n = ceremony->members_len;
    c->self = ceremony_index(ceremony, ceremony->seat);
    c->peers = (uint32_t)((UINT64_C(1) << c->n) - 1) & ~bit(c->self);
    c->state = TSS_CHANNEL_HELLO;
    c->keys = secret_alloc(sizeof *c->keys);
    if (c->keys == NULL) {
        tss_channel_free(c);
        return NULL;
    }
    random_bytes(c->keys->x25519_private32, sizeof c->keys->x25519_private32);
    CLASSIFY(c->keys->x25519_private32, sizeof c->keys->x25519_private32);
    if (has_witness(c)) {
        random_bytes(c->keys->ed25519_seed32, sizeof c->keys->ed25519_seed32);
        CLASSIFY(c->keys->ed25519_seed32, sizeof c->keys->ed25519_seed32);
    }
    return c;
}

/* A call of the face that comes near keys or plaintext. All of it runs on the secret stack, which is wiped once, at its end: what it
 * calls in there that has to run on that stack is on it already. */
typedef struct channel_call {
    tss_channel *channel;
    const tss_ceremony *ceremony; /* of a new one */
    tss_status status;
} channel_call;

static tss_status channel_inside(void (*function)(void *argument), channel_call *call) {
    return secret_call(function, call) ? call->status : TSS_MEMORY;
}

static void new_inside(void *argument) {
    channel_call *call = argument;
    tss_channel *c = channel_new(call->ceremony);
    call->status = c != NULL ? TSS_OK : TSS_MEMORY;
    for (size_t i = 0; call->status == TSS_OK && i < c->n; i++) {
        c->members[i].identity = crypto_identity_open(c->ceremony.members[i].identity33);
        if (c->members[i].identity == NULL) {
            call->status = refuse(TSS_MISUSE, "ceremony.members.identity33");
        }
    }
    if (call->status == TSS_OK && !channel_prepare(c)) {
        call->status = TSS_MEMORY;
    }
    if (call->status != TSS_OK) {
        tss_channel_free(c);
        c = NULL;
    }
    call->channel = c;
}

tss_status tss_channel_new(tss_channel **channel, const tss_ceremony *ceremony) {
    ARG_CHECK(channel != NULL, "channel");
    *channel = NULL;
    ARG_CHECK(ceremony != NULL, "ceremony");
    ARG_CHECK(secret_is_open(), "tss_open");
    const char *problem = ceremony_problem(ceremony);
    ARG_CHECK(problem == NULL, problem);
    channel_call call = {.ceremony = ceremony};
    const tss_status status = channel_inside(new_inside, &call);
    *channel = call.channel;
    return status;
}

void tss_channel_hello_digest(const tss_channel *channel, uint8_t *digest32) {
    if (digest32 == NULL) {
        return;
    }
    memset(digest32, 0, 32);
    if (channel != NULL && !crypto_tagged(digest32, CHANNEL_TAG_HELLO, statement_body(&channel->members[channel->self].hello))) {
        memset(digest32, 0, 32); /* no memory: a signature over zeros is refused by tss_channel_start */
    }
}

tss_status tss_channel_start(tss_channel *channel, const uint8_t *signature64) {
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(signature64 != NULL, "signature64");
    ARG_CHECK(!channel->started, "channel");
    channel_statement *hello = &channel->members[channel->self].hello;
    if (!seat_signed(channel, channel->self, CHANNEL_TAG_HELLO, statement_body(hello), signature64)) {
        return refuse(TSS_REFUSED, "signature64");
    }
    memcpy(hello->data + hello->len - CHANNEL_SIGNATURE_LEN, signature64, CHANNEL_SIGNATURE_LEN);
    channel->started = true;
    if (channel->state == TSS_CHANNEL_HELLO) {
        hello->due = channel->peers;
    }
    agree(channel);
    return TSS_OK;
}

tss_status tss_channel_receive(tss_channel *channel, const uint8_t *data, size_t data_len, uint64_t now_ms) {
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(data != NULL || data_len == 0, "data");
    clock_set(channel, now_ms);
    return receive_frame(channel, (span){data, data_len});
}

static void tick_inside(void *argument) {
    channel_call *call = argument;
    time_passes(call->channel);
}

void tss_channel_tick(tss_channel *channel, uint64_t now_ms) {
    if (channel != NULL) {
        clock_set(channel, now_ms);
        channel_call call = {.channel = channel};
        (void)channel_inside(tick_inside, &call); /* no room for a stack: the next tick finds some */
    }
}

void tss_channel_connected(tss_channel *channel, uint64_t now_ms) {
    if (channel == NULL) {
        return;
    }
    clock_set(channel, now_ms);
    if (channel->started && channel->state <= TSS_CHANNEL_RUNNING) {
        hello_again(channel);
    }
    if (wants_more(channel)) {
        acks_due(channel);
    }
    tss_channel_tick(channel, now_ms);
}

/* Hand out a statement that is due: to all at once where it is due to all. */
static bool statement_outgoing(const tss_channel *c, channel_statement *s, tss_frame *frame) {
    if (s->data == NULL || s->due == 0) {
        s->due = 0;
        return false;
    }
    *frame = (tss_frame){.to = TSS_BROADCAST, .data = s->data, .data_len = s->len};
    if (s->due == c->peers) {
        s->due = 0;
    } else {
        const size_t index = (size_t)__builtin_ctz(s->due);
        s->due &= ~bit(index);
        frame->to = seat_of(c, index);
    }
    return true;
}

static bool statements_outgoing(tss_channel *c, tss_frame *frame) {
    if (c->started && statement_outgoing(c, &c->members[c->self].hello, frame)) {
        return true;
    }
    for (size_t i = 0; c->convicted && i < 2; i++) {
        if (statement_outgoing(c, &c->evidence[i], frame)) {
            return true;
        }
    }
    for (size_t i = 0; i < c->shown_len; i++) {
        if (statement_outgoing(c, &c->shown[i], frame)) {
            return true;
        }
    }
    for (size_t i = 0; i < c->n; i++) {
        if (statement_outgoing(c, &c->members[i].confirmation, frame)) {
            return true;
        }
    }
    return statement_outgoing(c, &c->abort, frame);
}

static bool window_outgoing(tss_channel *c, tss_frame *frame) {
    for (size_t i = 0; c->state != TSS_CHANNEL_FAILED && i < c->n; i++) {
        window *w = &c->members[i].window;
        if (w->cursor < w->sent_len) {
            const window_frame *sent = &w->sent[w->cursor++];
            *frame = (tss_frame){.to = seat_of(c, i), .round = sent->round, .data = sent->data, .data_len = sent->len};
            return true;
        }
    }
    return false;
}

static bool acks_outgoing(tss_channel *c, tss_frame *frame) {
    for (size_t i = 0; i < c->n; i++) {
        channel_peer *peer = &c->members[i];
        if (peer->ack_due) {
            peer->ack_due = false;
            uint8_t *ack = malloc(FRAME_ACK_LEN);
            if (ack == NULL) {
                continue;
            }
            writer w = writer_open(ack, FRAME_ACK_LEN);
            ack_write(&w, c->ceremony.session16, c->ceremony.seat, seat_of(c, i), peer->window.wanted);
            c->handed = ack;
            *frame = (tss_frame){.to = seat_of(c, i), .data = ack, .data_len = w.len};
            return true;
        }
    }
    return false;
}

tss_status tss_channel_outgoing(tss_channel *channel, tss_frame *frame) {
    ARG_CHECK(frame != NULL, "frame");
    *frame = (tss_frame){0};
    ARG_CHECK(channel != NULL, "channel");
    free(channel->handed);
    channel->handed = NULL;
    const bool some =
        statements_outgoing(channel, frame) || window_outgoing(channel, frame) || acks_outgoing(channel, frame);
    return some ? TSS_OK : TSS_NOTHING;
}

tss_channel_state tss_channel_state_of(const tss_channel *channel) {
    return channel != NULL ? channel->state : TSS_CHANNEL_FAILED;
}

tss_status tss_channel_transcript(const tss_channel *channel, uint8_t *transcript32) {
    ARG_CHECK(transcript32 != NULL, "transcript32");
    memset(transcript32, 0, 32);
    ARG_CHECK(channel != NULL, "channel");
    if (!channel->has_transcript) {
        return TSS_NOTHING;
    }
    memcpy(transcript32, channel->transcript32, 32);
    return TSS_OK;
}

static void attach_inside(void *argument) {
    channel_call *call = argument;
    tss_channel *c = call->channel;
    if (!c->disputed && party_drain(c)) {
        pump(c);
    }
    call->status = TSS_OK;
}

tss_status tss_channel_attach(tss_channel *channel, tss_party *party, uint64_t now_ms) {
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(party != NULL, "party");
    ARG_CHECK(channel->state == TSS_CHANNEL_AGREED, "channel");
    clock_set(channel, now_ms);
    uint16_t round = 0;
    uint16_t rounds = 0;
    tss_party_round(party, &round, &rounds);
    ARG_CHECK(round == 1 && rounds >= 1 && rounds <= CHANNEL_ROUNDS_MAX, "party");
    ARG_CHECK(party->n == channel->n && party->own == channel->self, "party");
    for (size_t i = 0; i < channel->n; i++) {
        ARG_CHECK(party->seats[i] == seat_of(channel, i), "party");
    }
    channel->echoes = calloc(rounds, sizeof channel->echoes[0]);
    if (channel->echoes == NULL) {
        return TSS_MEMORY;
    }
    channel->rounds = rounds;
    channel->party = party;
    channel->state = TSS_CHANNEL_RUNNING;
    channel->steps++;
    channel_call call = {.channel = channel};
    if (channel_inside(attach_inside, &call) != TSS_OK) {
        fail_internal(channel, "no room for a stack");
    }
    return TSS_OK;
}

tss_status tss_channel_confirmation_digest(
    tss_channel *channel, uint8_t *digest32, const uint8_t *result32, uint64_t now_ms) {
    ARG_CHECK(digest32 != NULL, "digest32");
    memset(digest32, 0, 32);
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(channel->state == TSS_CHANNEL_RESULT, "channel");
    clock_set(channel, now_ms);
    const bool signing = channel->ceremony.kind == TSS_SIGNING;
    ARG_CHECK((result32 == NULL) == signing, "result32");
    tss_confirmation c = {
        .kind = channel->ceremony.kind,
        .protocol = channel->ceremony.protocol,
        .seat = channel->ceremony.seat,
        .generation = channel->ceremony.generation,
        .result_len = signing ? 64 : 32,
    };
    memcpy(c.session16, channel->ceremony.session16, sizeof c.session16);
    memcpy(c.committee32, channel->committee32, 32);
    memcpy(c.transcript32, channel->transcript32, 32);
    memcpy(c.result, signing ? channel->signature64 : result32, c.result_len);
    if (!echo_digest(c.echo32, channel->echoes, channel->rounds, channel->n)) {
        return TSS_MEMORY;
    }
    writer w = writer_open(channel->body, sizeof channel->body);
    confirmation_write(&w, &c);
    channel->body_len = w.len;
    for (size_t i = 0; !signing && i < channel->n; i++) {
        if (channel->members[i].confirmation.data != NULL && !confirmation_counts(channel, i)) {
            confirmation_conflict(channel, i);
            return TSS_FAULT;
        }
    }
    return crypto_tagged(digest32, CHANNEL_TAG_CONFIRM, own_body(channel)) ? TSS_OK : TSS_MEMORY;
}

tss_status tss_channel_confirmation_body(
    const tss_channel *channel, const uint8_t **body, size_t *body_len) {
    ARG_CHECK(body != NULL, "body");
    ARG_CHECK(body_len != NULL, "body_len");
    *body = NULL;
    *body_len = 0;
    ARG_CHECK(channel != NULL, "channel");
    if (channel->body_len == 0) {
        return TSS_NOTHING;
    }
    *body = channel->body;
    *body_len = channel->body_len;
    return TSS_OK;
}

tss_status tss_channel_confirm(tss_channel *channel, const uint8_t *signature64, uint64_t now_ms) {
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(signature64 != NULL, "signature64");
    ARG_CHECK(channel->state == TSS_CHANNEL_RESULT && channel->body_len != 0, "channel");
    clock_set(channel, now_ms);
    /* A share's confirmation is for good. In a signing the signature in it speaks for itself, here and at the peers. */
    if (channel->ceremony.kind != TSS_SIGNING
        && !seat_signed(channel, channel->self, CHANNEL_TAG_CONFIRM, own_body(channel), signature64)) {
        return refuse(TSS_REFUSED, "signature64");
    }
    channel_statement *own = &channel->members[channel->self].confirmation;
    if (!statement_keep_signed(own, own_body(channel), signature64)) {
        return TSS_MEMORY;
    }
    own->due = channel->peers;
    channel->steps++;
    channel->state = channel->ceremony.kind == TSS_SIGNING ? TSS_CHANNEL_COMPLETE : TSS_CHANNEL_CONFIRMING;
    complete_if_all(channel);
    return TSS_OK;
}

tss_status tss_channel_confirmation(
    const tss_channel *channel, const uint8_t **statement, size_t *statement_len, uint32_t seat) {
    ARG_CHECK(statement != NULL, "statement");
    ARG_CHECK(statement_len != NULL, "statement_len");
    *statement = NULL;
    *statement_len = 0;
    ARG_CHECK(channel != NULL, "channel");
    const size_t index = ceremony_index(&channel->ceremony, seat);
    ARG_CHECK(index != SIZE_MAX, "seat");
    const channel_statement *s = &channel->members[index].confirmation;
    if (s->data == NULL || (channel->ceremony.kind != TSS_SIGNING && !confirmation_counts(channel, index))) {
        return TSS_NOTHING;
    }
    *statement = s->data;
    *statement_len = s->len;
    return TSS_OK;
}

tss_status tss_channel_signature(const tss_channel *channel, uint8_t *signature64, uint8_t *recovery_id) {
    ARG_CHECK(signature64 != NULL, "signature64");
    ARG_CHECK(recovery_id != NULL, "recovery_id");
    memset(signature64, 0, 64);
    *recovery_id = 0;
    ARG_CHECK(channel != NULL, "channel");
    if (!channel->has_signature) {
        return TSS_NOTHING;
    }
    memcpy(signature64, channel->signature64, 64);
    *recovery_id = channel->recovery_id;
    return TSS_OK;
}

static int compare_seats(const void *a, const void *b) {
    uint32_t x;
    uint32_t y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

tss_status tss_channel_abort(tss_channel *channel, uint8_t *digest32, const char *reason) {
    ARG_CHECK(digest32 != NULL, "digest32");
    memset(digest32, 0, 32);
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(reason != NULL && abort_reason_is_valid(span_of_text(reason)), "reason");
    ARG_CHECK(may_fail(channel) || channel->state == TSS_CHANNEL_FAILED, "channel");
    tss_channel_fault fault = fault_of(TSS_CHANNEL_LOCAL, 0);
    detail_write(fault.detail, "%s", reason);
    fail(channel, &fault);
    tss_abort notice = {.seat = channel->ceremony.seat, .culprits_len = channel->fault.culprits_len};
    memcpy(notice.session16, channel->ceremony.session16, sizeof notice.session16);
    memcpy(notice.party_id, channel->ceremony.members[channel->self].party_id, sizeof notice.party_id);
    memcpy(notice.reason, reason, strlen(reason));
    memcpy(notice.culprits, channel->fault.culprits, sizeof notice.culprits);
    qsort(notice.culprits, notice.culprits_len, sizeof notice.culprits[0], compare_seats);
    writer w = writer_open(channel->notice, sizeof channel->notice);
    abort_write(&w, &notice);
    channel->notice_len = w.len;
    return crypto_tagged(digest32, CHANNEL_TAG_ABORT, (span){channel->notice, w.len}) ? TSS_OK : TSS_MEMORY;
}

tss_status tss_channel_abort_signed(tss_channel *channel, const uint8_t *signature64) {
    ARG_CHECK(channel != NULL, "channel");
    ARG_CHECK(signature64 != NULL, "signature64");
    ARG_CHECK(channel->notice_len != 0, "channel");
    const span body = {channel->notice, channel->notice_len};
    if (!seat_signed(channel, channel->self, CHANNEL_TAG_ABORT, body, signature64)) {
        return refuse(TSS_REFUSED, "signature64");
    }
    if (!statement_keep_signed(&channel->abort, body, signature64)) {
        return TSS_MEMORY;
    }
    channel->abort.due = channel->peers;
    return TSS_OK;
}

void tss_channel_fault_of(const tss_channel *channel, tss_channel_fault *fault) {
    if (channel == NULL || fault == NULL) {
        return;
    }
    *fault = channel->fault;
    for (size_t i = 0; i < 2 && fault->reason != TSS_CHANNEL_NONE; i++) {
        fault->evidence[i] = channel->evidence[i].data;
        fault->evidence_len[i] = channel->evidence[i].len;
    }
}

void tss_channel_drops(const tss_channel *channel, uint64_t *drops) {
    if (channel != NULL && drops != NULL) {
        memcpy(drops, channel->drops, sizeof channel->drops);
    }
}

void tss_channel_progress(const tss_channel *channel, tss_progress *progress) {
    if (channel == NULL || progress == NULL) {
        return;
    }
    *progress = (tss_progress){.steps = channel->steps};
    progress->round = channel->round;
    progress->rounds = channel->rounds;
    uint32_t waits_for = 0;
    if (channel->party != NULL) {
        tss_party_round(channel->party, &progress->round, &progress->rounds);
        waits_for = tss_party_waits_for(channel->party);
    }
    for (size_t i = 0; i < channel->n; i++) {
        const channel_peer *peer = &channel->members[i];
        const bool waits = i != channel->self
            && ((channel->state == TSS_CHANNEL_HELLO && peer->hello.data == NULL)
                || (channel->state <= TSS_CHANNEL_RUNNING && channel->state != TSS_CHANNEL_HELLO && peer->window.next == 0)
                || (waits_for & bit(i)) != 0
                || (channel->state == TSS_CHANNEL_CONFIRMING && !confirmation_counts(channel, i)));
        if (waits) {
            progress->waits_for[progress->waits_for_len++] = seat_of(channel, i);
        }
    }
}

tss_status tss_frame_claims(
    tss_frame_kind *kind, uint8_t *session16, uint32_t *from, const uint8_t *data, size_t data_len) {
    ARG_CHECK(kind != NULL, "kind");
    ARG_CHECK(session16 != NULL, "session16");
    ARG_CHECK(from != NULL, "from");
    *kind = (tss_frame_kind)0;
    memset(session16, 0, 16);
    *from = 0;
    ARG_CHECK(data != NULL || data_len == 0, "data");
    reader r = reader_open((span){data, data_len});
    const channel_header header = reader_header(&r);
    if (!r.ok || header.kind < TSS_FRAME_HELLO || header.kind > TSS_FRAME_BROADCAST
        || (header.version != CHANNEL_VERSION && header.kind != TSS_FRAME_HELLO)) {
        return refuse(TSS_REFUSED, "data");
    }
    *kind = (tss_frame_kind)header.kind;
    memcpy(session16, header.session16, 16);
    *from = header.from;
    return TSS_OK;
}

tss_status tss_committee_digest(uint8_t *digest32, const tss_ceremony *ceremony) {
    ARG_CHECK(digest32 != NULL, "digest32");
    memset(digest32, 0, 32);
    ARG_CHECK(ceremony != NULL, "ceremony");
    ARG_CHECK(ceremony->members_len >= 2 && ceremony->members_len <= TSS_PARTIES_MAX, "ceremony.members_len");
    const char *problem = members_problem(ceremony);
    ARG_CHECK(problem == NULL, problem);
    return committee_digest(digest32, ceremony) ? TSS_OK : TSS_MEMORY;
}

#endif
