#ifndef TSS_RANDOM_IMPL_H
#define TSS_RANDOM_IMPL_H

#include "random.h"
#include "secret.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static bool random_from_system(uint8_t *out, size_t len) {
    while (len != 0) {
        const ssize_t got = getrandom(out, len, 0);
        if (got > 0) {
            out += got;
            len -= (size_t)got;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

INTERNAL bool random_works(void) {
    uint8_t probe[16];
    const bool works = random_from_system(probe, sizeof probe);
    secret_wipe(probe, sizeof probe);
    return works;
}

#ifdef TSS_SEEDED
#include <openssl/sha.h>
#include <pthread.h>

static struct {
    pthread_mutex_t lock;
    bool on;
    uint8_t seed_and_counter[40];
    uint8_t block[32];
    size_t left; /* bytes of block not yet handed out */
} random_stream = {.lock = PTHREAD_MUTEX_INITIALIZER};

INTERNAL void random_seed(const uint8_t *seed32) {
    (void)pthread_mutex_lock(&random_stream.lock);
    random_stream.on = seed32 != NULL;
    random_stream.left = 0;
    memset(random_stream.seed_and_counter, 0, sizeof random_stream.seed_and_counter);
    if (seed32 != NULL) {
        memcpy(random_stream.seed_and_counter, seed32, 32);
    }
    (void)pthread_mutex_unlock(&random_stream.lock);
}

static void random_next_block(void) {
    (void)SHA256(random_stream.seed_and_counter, sizeof random_stream.seed_and_counter, random_stream.block);
    random_stream.left = sizeof random_stream.block;
    for (size_t i = 40; i-- > 32 && ++random_stream.seed_and_counter[i] == 0;) {
    }
}

static bool random_from_seed(uint8_t *out, size_t len) {
    (void)pthread_mutex_lock(&random_stream.lock);
    const bool on = random_stream.on;
    for (size_t i = 0; on && i < len; i++) {
        if (random_stream.left == 0) {
            random_next_block();
        }
        out[i] = random_stream.block[sizeof random_stream.block - random_stream.left];
        random_stream.left--;
    }
    (void)pthread_mutex_unlock(&random_stream.lock);
    return on;
}
#endif

INTERNAL void random_bytes(uint8_t *out, size_t len) {
#ifdef TSS_SEEDED
    if (random_from_seed(out, len)) {
        return;
    }
#endif
    if (!random_from_system(out, len)) {
        abort();
    }
    CLASSIFY(out, len); /* what is drawn is secret until somebody publishes it */
}

INTERNAL void random_below(big result, big bound) {
    /* How long the bound is, is public everywhere it is used, also where the bound (p'q', phi) is not. */
    size_t bits = big_bits_var(bound);
    DECLASSIFY(&bits, sizeof bits);
    const size_t n = BIG_LIMBS(bits);
    const uint64_t mask = bits % 64 == 0 ? UINT64_MAX : ((uint64_t)1 << (bits % 64)) - 1;
    VERIFY_CHECK(bits != 0 && result.n >= n);
    big_zero(result);
    uint64_t fits;
    do {
        random_bytes((uint8_t *)result.d, 8 * n);
        result.d[n - 1] &= mask;
        fits = big_less(result, bound);
        /* A refused candidate is thrown away, and says nothing about the next. */
        DECLASSIFY(&fits, sizeof fits);
    } while (fits == 0);
}

INTERNAL void random_unit(big result, big bound) {
    uint64_t zero;
    do {
        random_below(result, bound);
        zero = big_is_zero(result);
        DECLASSIFY(&zero, sizeof zero); /* as above */
    } while (zero != 0);
}

#endif
