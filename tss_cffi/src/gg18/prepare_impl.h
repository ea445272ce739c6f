#ifndef TSS_GG18_PREPARE_IMPL_H
#define TSS_GG18_PREPARE_IMPL_H

#include <string.h>

#include "../random.h"
#include "../secret.h"
#include "prepare.h"

INTERNAL void *gg18_prepare_begin(void) {
    gg18_prepare *search = secret_alloc(sizeof(gg18_prepare));
    if (search != NULL) {
        search->search = prime_search_new();
        if (search->search == NULL) {
            secret_free(search);
            search = NULL;
        }
    }
    return search;
}

INTERNAL void gg18_prepare_end(void *state) {
    gg18_prepare *search = state;
    prime_search_free(search->search);
    secret_free(search);
}

/* h1 = f^2 generates the squares (order p'q') but for a chance of 2^-1022; h2 = h1^alpha. */
static void prepare_ring(gg18_prepared *prepared) {
    ring_private ring;
    BIG(f, N_BITS);
    BIG(order, N_BITS);
    BIG(inverse, N_BITS);
    const big h1 = BIG_OF(prepared->public_.h1);
    const big alpha = BIG_OF(prepared->own.alpha);
    const bool coprime = ring_private_init(&ring, &prepared->own, h1);
    VERIFY_CHECK(coprime);
    (void)coprime;
    random_unit(f, modulus_value(&ring.n.n));
    mod_mul(h1, f, f, &ring.n.n);
    big_mul(order, modulus_value(&ring.n.p_half), modulus_value(&ring.n.q_half));
    do {
        random_unit(alpha, order);
    } while (!decided(big_inverse_odd(inverse, alpha, order)));
}

INTERNAL tss_status gg18_prepare_step(void *state, tss_secret **prepared, uint16_t *permille) {
    gg18_prepare *search = state;
    BIG(germain, P_BITS);
    /* All four are there already where the arena was too full for the set and the caller tries again. */
    if (search->found < 4 && prime_search_step(search->search, BIG_OF(search->primes[search->found]), germain)) {
        search->found++;
        if (search->found == 2 && !decided(primes_apart(BIG_OF(search->primes[0]), BIG_OF(search->primes[1])))) {
            search->found = 1; /* nearly every second time: a second prime is looked for again */
        }
    }
    if (search->found < 4) {
        const uint16_t estimate = (uint16_t)((search->found * 1000 + prime_search_permille(search->search)) / 4);
        search->permille = estimate > search->permille ? estimate : search->permille;
        *permille = search->permille;
        return TSS_MORE;
    }
    gg18_prepared made;
    memset(&made, 0, sizeof(made));
    memcpy(made.own.p, search->primes[0], sizeof(made.own.p));
    memcpy(made.own.q, search->primes[1], sizeof(made.own.q));
    memcpy(made.own.ring_p, search->primes[2], sizeof(made.own.ring_p));
    memcpy(made.own.ring_q, search->primes[3], sizeof(made.own.ring_q));
    prepare_ring(&made);
    if (prepared_complete(&made, 1) != NULL) {
        search->found = 0; /* next to impossible, as prime_search_step is never wrong: all over again */
        *permille = search->permille;
        return TSS_MORE;
    }
    *prepared = prepared_write(&made, PREPARED_SEARCHED);
    if (*prepared == NULL) {
        return TSS_MEMORY;
    }
    /* Handed over: a caller who goes on begins another set. */
    while (search->found != 0) {
        search->found--;
        big_wipe(BIG_OF(search->primes[search->found]));
    }
    search->permille = 0;
    return TSS_OK;
}

#endif
