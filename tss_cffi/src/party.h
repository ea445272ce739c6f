#ifndef TSS_PARTY_H
#define TSS_PARTY_H

#include "../include/tss.h"
#include "check.h"
#include "wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A seat in a ceremony, whatever the protocol: slots for messages, the round, the queue of what is to be sent, the fault.
 *
 * A protocol describes a ceremony by a table of message types and by one computation for each round. Round r's computation sees the
 * messages of round r - 1, checks them, and sends those of round r; the first sees none, and the one after the last makes the result.
 *
 * A SLOT is (message type, sender). It takes one message; the class follows from the type. What was taken is remembered by its
 * SHA-256 after the bytes are gone, so that a late difference is still equivocation.
 *
 * All functions here run inside secret_call. */

enum { PARTY_TYPES_MAX = 12 };

typedef struct party_type {
    uint16_t round;
    tss_class class_;
} party_type;

typedef struct ceremony {
    uint16_t rounds; /* that have messages; there is one computation more */
    size_t types_len;
    party_type types[PARTY_TYPES_MAX]; /* in the order of their rounds */

    /** Which type is it, and has it the shape of one? NULL, or what is wrong with it as the detail of a fault. */
    const char *(*recognise)(size_t *type, const tss_party *party, span message);

    /** False: party_fail has been called. */
    bool (*compute)(tss_party *party, uint16_t round);

    /** Free party->state and all it holds. */
    void (*end)(tss_party *party);
} ceremony;

typedef struct party_slot {
    bool taken;
    uint8_t digest32[32];
    uint8_t *data; /* in the arena; NULL when consumed */
    size_t len;
} party_slot;

/* A message on its way out; lies in the arena with its bytes behind it. */
typedef struct party_message {
    struct party_message *next;
    tss_message message;
    uint8_t data[];
} party_message;

struct tss_party {
    const ceremony *ceremony;
    void *state; /* the ceremony's, in the arena */
    tss_state phase; /* TSS_WANTS while it runs, TSS_DONE, TSS_FAILED */
    uint16_t round;  /* whose messages it waits for */
    uint16_t computing; /* whose computation runs, 0 outside */
    size_t n;
    size_t own; /* index into seats */
    uint32_t seats[TSS_PARTIES_MAX];
    party_slot *slots; /* [type][sender], on the heap */
    party_message *first, **last; /* to be sent */
    party_message *handed;        /* what the caller reads at the moment */
    tss_fault fault;

    tss_secret *share; /* results, by kind of ceremony */
    bool has_signature;
    uint8_t signature64[64];
    uint8_t recovery_id;
};

/** A seat without a state yet. NULL: no memory. The caller checked the seats. */
INTERNAL MUST_USE tss_party *party_new(const ceremony *ceremony, uint32_t seat, const uint32_t *seats, size_t n);

/** Run the first computation. */
INTERNAL MUST_USE tss_status party_begin(tss_party *party);

/** As tss_party_free, tss_party_receive, ...: for callers that are inside secret_call already. */
INTERNAL void party_free(tss_party *party);
INTERNAL tss_status party_receive(tss_party *party, uint32_t from, tss_class class_, span message);
INTERNAL tss_status party_outgoing(tss_party *party, tss_message *message);
INTERNAL tss_state party_state(const tss_party *party);
INTERNAL uint32_t party_waits_for(const tss_party *party);

/* ---- For the protocols ---- */

/** The bytes of a slot that is filled and not consumed yet. */
INTERNAL span party_read(const tss_party *party, size_t type, size_t sender);

/** Queue a message of len bytes and return where to write them. NULL: party_fail has been called.
 *  In: to  an index into seats, or SIZE_MAX for a broadcast */
INTERNAL MUST_USE uint8_t *party_send(tss_party *party, size_t type, size_t to, size_t len);

/** End in failure: wipe everything, remember why. culprits is a set of indices, bit by bit. Always false. */
INTERNAL bool party_fail(tss_party *party, tss_reason reason, uint32_t culprits, const char *detail);

/** We failed, for want of memory, inside a check that can only say "no": whatever this computation fails for then, nobody is blamed. */
INTERNAL void party_own_failure(void);

INTERNAL MUST_USE tss_secret *secret_bytes_new(size_t len);

#endif
