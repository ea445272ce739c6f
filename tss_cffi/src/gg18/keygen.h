#ifndef TSS_GG18_KEYGEN_H
#define TSS_GG18_KEYGEN_H

#include "../party.h"

/** A seat in a keygen. The arguments have been checked but for prepared, which is spent whatever this returns.
 *  Returns: TSS_OK, TSS_MEMORY, or TSS_REFUSED: *field names what is wrong with prepared */
INTERNAL tss_status gg18_keygen_begin(
    tss_party **party, const char **field, tss_protocol protocol, uint32_t seat, const uint32_t *seats, size_t n,
    uint16_t threshold, tss_secret *prepared, const uint8_t *session32);

#endif
