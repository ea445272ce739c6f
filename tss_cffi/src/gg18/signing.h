#ifndef TSS_GG18_SIGNING_H
#define TSS_GG18_SIGNING_H

#include "../party.h"
#include "share.h"

/** A seat in a signing. The arguments have been checked. Returns TSS_OK or TSS_MEMORY. */
INTERNAL tss_status gg18_signing_begin(
    tss_party **party, const gg18_share *share, const uint32_t *signers, size_t n, const uint8_t *digest32,
    const uint8_t *session32);

#endif
