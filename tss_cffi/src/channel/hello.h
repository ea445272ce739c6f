#ifndef TSS_CHANNEL_HELLO_H
#define TSS_CHANNEL_HELLO_H

#include "crypto.h"
#include "encoding.h"

/* The hello states a whole ceremony and brings the sender's ephemeral keys, under its identity's signature; `ready` lists the hellos
 * that its sender holds, under its ephemeral signature (between two, under none). Both in clear. docs/channel.md, "Hello" and "Ready". */

#define HELLO_LEN_MAX ((size_t)8 * 1024)

/* Views into the body of a hello. */
typedef struct channel_hello {
    channel_header header;
    uint8_t kind;
    uint8_t protocol;
    span party_id;
    span identity;
    span x25519;
    span ed25519; /* zeros in a committee of two */
    uint16_t committee_len; /* 2..TSS_PARTIES_MAX */
    uint32_t seats[TSS_PARTIES_MAX];
    span party_ids[TSS_PARTIES_MAX];
    uint16_t threshold;
    uint32_t generation;
    span public_key; /* 0 or 33 bytes */
    span digest;     /* 0 or 32 bytes */
} channel_hello;

/** The name of the first field of the ceremony that breaks a rule of tss_channel.h, or NULL. */
INTERNAL const char *ceremony_problem(const tss_ceremony *ceremony);

/** Index of a seat in the committee, or SIZE_MAX. */
INTERNAL size_t ceremony_index(const tss_ceremony *ceremony, uint32_t seat);

INTERNAL void hello_write(writer *w, const tss_ceremony *ceremony, const uint8_t *x25519_32, const uint8_t *ed25519_32);

/** False: not the layout of a hello of this version. */
INTERNAL MUST_USE bool hello_read(channel_hello *hello, span body);

/** Does it state another ceremony than ours, or another sender than members[index]? Then detail (TSS_CHANNEL_DETAIL_MAX bytes)
 *  names the first field, in the order of the body, and both values. */
INTERNAL bool hello_differs(char *detail, const channel_hello *hello, const tss_ceremony *ceremony, size_t index);

/** SHA-256(tag || 0x00 || threshold || committee). */
INTERNAL MUST_USE bool committee_digest(uint8_t *digest32, const tss_ceremony *ceremony);

/** The body of our ready: hashes32 has one hash of a hello's body for each seat, ascending. */
INTERNAL void ready_write(
    writer *w, const tss_ceremony *ceremony, const uint8_t (*hashes32)[32]);

/** False: malformed, or not count hashes. */
INTERNAL MUST_USE bool ready_read(channel_header *header, uint8_t (*hashes32)[32], size_t count, span body);

#endif
