#ifndef TSS_PARTY_IMPL_H
#define TSS_PARTY_IMPL_H

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "party.h"
#include "secret.h"

struct tss_secret {
    size_t len;
    uint8_t data[];
};

INTERNAL tss_secret *secret_bytes_new(size_t len) {
    tss_secret *secret = secret_alloc(sizeof(tss_secret) + len);
    if (secret != NULL) {
        secret->len = len;
    }
    return secret;
}

INTERNAL tss_party *party_new(const ceremony *ceremony, uint32_t seat, const uint32_t *seats, size_t n) {
    tss_party *party = secret_alloc(sizeof(tss_party));
    if (party == NULL) {
        return NULL;
    }
    party->ceremony = ceremony;
    party->phase = TSS_WANTS;
    party->n = n;
    party->last = &party->first;
    memcpy(party->seats, seats, n * sizeof(seats[0]));
    while (party->seats[party->own] != seat) {
        party->own++;
    }
    party->slots = calloc(ceremony->types_len * n, sizeof(party_slot));
    if (party->slots == NULL) {
        secret_free(party);
        return NULL;
    }
    return party;
}

static party_slot *party_slot_of(const tss_party *party, size_t type, size_t sender) {
    return &party->slots[type * party->n + sender];
}

static void party_slot_drop(const tss_party *party, size_t type, size_t sender) {
    party_slot *slot = party_slot_of(party, type, sender);
    secret_free(slot->data);
    slot->data = NULL;
}

/* Everything but the fault and the results. */
static void party_wipe(tss_party *party) {
    for (size_t type = 0; type < party->ceremony->types_len; type++) {
        for (size_t sender = 0; sender < party->n; sender++) {
            party_slot_drop(party, type, sender);
        }
    }
    while (party->first != NULL) {
        party_message *next = party->first->next;
        secret_free(party->first);
        party->first = next;
    }
    party->last = &party->first;
    if (party->state != NULL) {
        party->ceremony->end(party);
        party->state = NULL;
    }
}

INTERNAL void party_free(tss_party *party) {
    if (party != NULL) {
        party_wipe(party);
        secret_free(party->handed);
        secret_free(party->share);
        free(party->slots);
        secret_free(party);
    }
}

/* Of the thread: the computation that it runs has failed by itself. */
static _Thread_local bool party_failed_itself = false;

INTERNAL void party_own_failure(void) { party_failed_itself = true; }

INTERNAL bool party_fail(tss_party *party, tss_reason reason, uint32_t culprits, const char *detail) {
    if (party->computing != 0 && party_failed_itself) {
        reason = TSS_REASON_INTERNAL;
        culprits = 0;
        detail = "no memory for a check";
    }
    party->phase = TSS_FAILED;
    party->fault.reason = reason;
    party->fault.round = party->computing != 0 ? party->computing : party->round;
    for (size_t i = 0; i < party->n; i++) {
        if ((culprits >> i & 1) != 0) {
            party->fault.culprits[party->fault.culprits_len++] = party->seats[i];
        }
    }
    const size_t len = strlen(detail);
    VERIFY_CHECK(len < sizeof(party->fault.detail));
    memcpy(party->fault.detail, detail, len < sizeof(party->fault.detail) ? len : sizeof(party->fault.detail) - 1);
    party_wipe(party);
    return false;
}

INTERNAL span party_read(const tss_party *party, size_t type, size_t sender) {
    const party_slot *slot = party_slot_of(party, type, sender);
    return (span){slot->data, slot->len};
}

INTERNAL uint8_t *party_send(tss_party *party, size_t type, size_t to, size_t len) {
    party_message *m = secret_alloc(sizeof(party_message) + len);
    if (m == NULL) {
        (void)party_fail(party, TSS_REASON_INTERNAL, 0, "the arena is full");
        return NULL;
    }
    m->message = (tss_message){
        .class_ = party->ceremony->types[type].class_,
        .to = to == SIZE_MAX ? TSS_BROADCAST : party->seats[to],
        .round = party->ceremony->types[type].round,
        .data = m->data,
        .data_len = len,
    };
    *party->last = m;
    party->last = &m->next;
    return m->data;
}

static bool party_misses(const tss_party *party, size_t sender) {
    for (size_t type = 0; type < party->ceremony->types_len; type++) {
        if (party->ceremony->types[type].round == party->round && !party_slot_of(party, type, sender)->taken) {
            return true;
        }
    }
    return false;
}

INTERNAL uint32_t party_waits_for(const tss_party *party) {
    uint32_t missing = 0;
    for (size_t i = 0; party->phase == TSS_WANTS && i < party->n; i++) {
        if (i != party->own && party_misses(party, i)) {
            missing |= UINT32_C(1) << i;
        }
    }
    return missing;
}

/* One computation; true: it went well. */
static bool party_compute(tss_party *party) {
    party->computing = (uint16_t)(party->round + 1);
    party_failed_itself = false;
    if (!party->ceremony->compute(party, party->computing)) {
        return false;
    }
    for (size_t type = 0; type < party->ceremony->types_len; type++) {
        for (size_t sender = 0; party->ceremony->types[type].round == party->round && sender < party->n; sender++) {
            party_slot_drop(party, type, sender);
        }
    }
    party->computing = 0;
    if (party->round < party->ceremony->rounds) {
        party->round++;
    } else {
        party->phase = TSS_DONE;
        party->ceremony->end(party);
        party->state = NULL;
    }
    return true;
}

INTERNAL tss_status party_begin(tss_party *party) {
    /* Nothing was received, so what fails here is memory. */
    return party_compute(party) ? TSS_OK : TSS_MEMORY;
}

static bool party_slot_fill(party_slot *slot, const uint8_t *digest32, span message) {
    const size_t len = message.len == 0 ? 1 : message.len;
    slot->data = secret_alloc(len);
    if (slot->data == NULL) {
        return false;
    }
    memcpy(slot->data, message.at, message.len);
    memcpy(slot->digest32, digest32, 32);
    slot->len = message.len;
    slot->taken = true;
    return true;
}

INTERNAL tss_status party_receive(tss_party *party, uint32_t from, tss_class class_, span message) {
    if (party->phase != TSS_WANTS) {
        return TSS_FINAL;
    }
    size_t sender = 0;
    while (sender < party->n && party->seats[sender] != from) {
        sender++;
    }
    if (sender == party->n || sender == party->own) {
        return TSS_STRANGER;
    }
    const uint32_t culprit = UINT32_C(1) << sender;
    size_t type;
    const char *problem = party->ceremony->recognise(&type, party, message);
    if (problem != NULL) {
        (void)party_fail(party, TSS_REASON_MALFORMED, culprit, problem);
        return TSS_FAULT;
    }
    if (party->ceremony->types[type].class_ != class_) {
        (void)party_fail(party, TSS_REASON_CLASS, culprit, "message: delivered in the wrong class");
        return TSS_FAULT;
    }
    uint8_t digest32[32];
    if (EVP_Digest(message.at, message.len, digest32, NULL, EVP_sha256(), NULL) != 1) {
        (void)party_fail(party, TSS_REASON_INTERNAL, 0, "hashing failed");
        return TSS_FAULT;
    }
    party_slot *slot = party_slot_of(party, type, sender);
    if (slot->taken) {
        if (memcmp(slot->digest32, digest32, 32) == 0) {
            return TSS_REPEAT;
        }
        (void)party_fail(party, TSS_REASON_EQUIVOCATION, culprit, "message: differs from an earlier one of its type");
        return TSS_FAULT;
    }
    if (!party_slot_fill(slot, digest32, message)) {
        (void)party_fail(party, TSS_REASON_INTERNAL, 0, "no memory for a message");
        return TSS_FAULT;
    }
    while (party->phase == TSS_WANTS && party_waits_for(party) == 0) {
        if (!party_compute(party)) {
            return TSS_FAULT;
        }
    }
    return TSS_OK;
}

INTERNAL tss_status party_outgoing(tss_party *party, tss_message *message) {
    secret_free(party->handed);
    party->handed = party->first;
    if (party->handed == NULL) {
        return TSS_NOTHING;
    }
    party->first = party->handed->next;
    if (party->first == NULL) {
        party->last = &party->first;
    }
    *message = party->handed->message;
    return TSS_OK;
}

INTERNAL tss_state party_state(const tss_party *party) {
    return party->phase != TSS_FAILED && party->first != NULL ? TSS_HAS : party->phase;
}

#endif
