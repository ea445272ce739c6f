#ifndef TSS_GG18_PREPARE_H
#define TSS_GG18_PREPARE_H

#include "../primes.h"
#include "share.h"

/* Four safe primes: two for Paillier, whose difference is large, two for the ring. */
typedef struct gg18_prepare {
    prime_search *search;
    size_t found;
    uint16_t permille;
    uint64_t primes[4][P_LIMBS];
} gg18_prepare;

INTERNAL void *gg18_prepare_begin(void);
INTERNAL tss_status gg18_prepare_step(void *search, tss_secret **prepared, uint16_t *permille);
INTERNAL void gg18_prepare_end(void *search);

#endif
