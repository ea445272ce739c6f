#ifndef TSS_PROTOCOL_H
#define TSS_PROTOCOL_H

#include "../include/tss.h"
#include "party.h"
#include "wire.h"

/* What the public face needs of a protocol. One table entry each; nothing else in the core knows which protocols there are.
 *
 * Functions that can refuse key material set *field to what is wrong and return TSS_REFUSED. Arguments have been checked for all
 * that holds for every protocol. All run inside secret_call. */

typedef struct protocol {
    tss_protocol id;
    bool binds_session;
    bool wants_prepared;

    /** The search for pre-parameters; NULL where none are wanted. begin: NULL is no memory. step: *prepared stays NULL until found. */
    void *(*prepare_begin)(void);
    tss_status (*prepare_step)(void *search, tss_secret **prepared, uint16_t *permille);
    void (*prepare_end)(void *search);

    /** Room for fingerprints_max in out32; *count says how many there are. */
    tss_status (*prepared_fingerprints)(uint8_t *out32, size_t *count, const char **field, span prepared);

    /** prove: check every relation; else only what bytes that were proven before might still fail in. */
    tss_status (*share_load)(void **share, const char **field, span bytes, bool prove);
    void (*share_free)(void *share);
    bool (*share_describe)(tss_share_info *info, const void *share);
    bool (*share_fingerprints)(uint8_t *out32, size_t *count, const void *share);
    tss_status (*share_import)(tss_secret **bytes, const char **field, tss_protocol id, uint16_t threshold, span foreign);

    tss_status (*keygen_begin)(
        tss_party **party, const char **field, tss_protocol id, uint32_t seat, const uint32_t *seats, size_t n,
        uint16_t threshold, tss_secret *prepared, const uint8_t *session32);
    tss_status (*signing_begin)(
        tss_party **party, const void *share, const uint32_t *signers, size_t n, const uint8_t *digest32,
        const uint8_t *session32);
} protocol;

enum { FINGERPRINTS_MAX = 4 * (int)TSS_PARTIES_MAX };

/* Everything that is kept begins alike: what it is, its format, its protocol. */
typedef enum kept_kind { KEPT_PREPARED = 1, KEPT_SHARE = 2 } kept_kind;

INTERNAL void kept_write(writer *w, kept_kind kind, tss_protocol id);

/** The protocol, or 0: not of that kind, or of a format this version does not know. */
INTERNAL uint8_t kept_read(reader *r, kept_kind kind);

#endif
