#ifndef TSS_PRIMES_IMPL_H
#define TSS_PRIMES_IMPL_H

#include "montgomery.h"
#include "primes.h"
#include "random.h"
#include "secret.h"

#include <gmp.h>
#include <stdlib.h>
#include <string.h>

/* Candidates are q = start + 6 i for a random start = 5 (mod 6) and 0 <= i < PRIME_WINDOW: the other classes modulo 6 have 2 or 3 dividing q
 * or 2q + 1. A bit of the sieve is set when a small prime divides either. What is left is tested by Fermat's test to base 2, q first.
 * About one i in 63 000 gives a safe prime, so a window holds four on average. */
#define PRIME_WINDOW ((size_t)1 << 18)

/* Twice as far would save 4 % of the tests and cost as much again in divisions. */
#define PRIME_SIEVE_LIMIT ((size_t)1 << 20)

#define PRIME_SIEVE_STEP 16384u /* small primes sieved by in one step */
#define PRIME_BATCH 8u          /* candidates tested, or rounds made, in one step */

/* Tests that one find takes on average (measured); for the progress shown, nothing else. */
#define PRIME_EXPECTED_TESTS 830u

/* Per number, once it is found; tss-lib makes as many. */
#define PRIME_ROUNDS 30u

struct prime_search {
    uint32_t *small; /* the primes 5 <= r < PRIME_SIEVE_LIMIT, on the heap: public */
    size_t small_len;
    size_t sieved; /* how many of them this window has been sieved by; 0: the window is not begun */
    size_t next;   /* the index behind the last candidate tested */
    size_t hope;   /* the index of the one that is being confirmed */
    size_t tests;  /* since the last find */
    unsigned rounds; /* that one passed Fermat's tests and rounds - 1 more; 0 when there is none */
    uint64_t start[PRIME_LIMBS];
    uint64_t sieve[PRIME_WINDOW / 64];
};

/* The primes from 5 to the limit, by Eratosthenes over odd numbers. */
static size_t prime_small_table(uint32_t *small) {
    uint8_t *composite = calloc(PRIME_SIEVE_LIMIT / 2, 1); /* of 2 i + 1 */
    size_t len = 0;
    for (size_t i = 1; composite != NULL && i < PRIME_SIEVE_LIMIT / 2; i++) {
        if (composite[i] == 0) {
            const size_t r = 2 * i + 1;
            if (r >= 5) {
                small[len] = (uint32_t)r;
                len++;
            }
            for (size_t j = 2 * i * (i + 1); j < PRIME_SIEVE_LIMIT / 2; j += r) {
                composite[j] = 1;
            }
        }
    }
    free(composite);
    return len;
}

INTERNAL prime_search *prime_search_new(void) {
    prime_search *search = secret_alloc(sizeof *search);
    if (search != NULL) {
        /* There are 82 025 primes below 2^20; a twelfth of the numbers is room enough. */
        search->small = malloc(PRIME_SIEVE_LIMIT / 12 * sizeof *search->small);
        search->small_len = search->small != NULL ? prime_small_table(search->small) : 0;
        if (search->small_len == 0) {
            prime_search_free(search);
            search = NULL;
        }
    }
    return search;
}

INTERNAL void prime_search_free(prime_search *search) {
    if (search != NULL) {
        free(search->small);
        secret_free(search);
    }
}

INTERNAL uint16_t prime_search_permille(const prime_search *search) {
    return (uint16_t)(999 * search->tests / (search->tests + PRIME_EXPECTED_TESTS));
}

/* ---- The sieve. Its addresses depend on the start modulo small primes; see the header. ---- */

static void prime_begin_window(prime_search *search) {
    const big start = BIG_OF(search->start);
    const uint64_t six = 6;
    uint64_t rest;
    random_bytes((uint8_t *)search->start, sizeof search->start);
    /* 1023 bits, the two top ones set: so are those of p = 2q + 1. */
    search->start[PRIME_LIMBS - 1] &= UINT64_MAX >> 2;
    search->start[PRIME_LIMBS - 1] |= (uint64_t)3 << 61;
    /* A start so near the top that the window would carry beyond 1023 bits has the chance 2^-1000. */
    big_mod(big_view(&rest, 1), start, big_view(&six, 1));
    (void)big_sub(start, start, big_view(&rest, 1));
    rest = 5;
    (void)big_add(start, start, big_view(&rest, 1));
    memset(search->sieve, 0, sizeof search->sieve);
    search->next = 0;
}

static void prime_mark(prime_search *search, size_t from, size_t step) {
    for (size_t i = from; i < PRIME_WINDOW; i += step) {
        search->sieve[i / 64] |= (uint64_t)1 << (i % 64);
    }
}

static void prime_sieve_by(prime_search *search, uint64_t r, uint64_t start) {
    /* r divides start + 6 i at i = -start/6, and 2 (start + 6 i) + 1 at i = -start/6 - 1/12. As r^2 = 1 (mod 12), 12 divides
     * r (12 - r mod 12) + 1, and the quotient is 1/12 modulo r. */
    const uint64_t twelfth = (r * (12 - r % 12) + 1) / 12;
    const uint64_t first = (r - start) * (2 * twelfth) % r;
    prime_mark(search, first, r);
    prime_mark(search, (first + r - twelfth) % r, r);
}

static void prime_sieve_step(prime_search *search) {
    const size_t end = search->sieved + PRIME_SIEVE_STEP;
    while (search->sieved < end && search->sieved < search->small_len) {
        /* Small primes below 2^20, three to a limb: one long division for all of them. */
        const size_t left = search->small_len - search->sieved;
        const size_t group = left < 3 ? left : 3;
        uint64_t product = 1;
        for (size_t i = 0; i < group; i++) {
            product *= search->small[search->sieved + i];
        }
        const uint64_t rest = mpn_mod_1(search->start, PRIME_LIMBS, product);
        for (size_t i = 0; i < group; i++) {
            const uint64_t r = search->small[search->sieved + i];
            prime_sieve_by(search, r, rest % r);
        }
        search->sieved += group;
    }
}

/* ---- Tests ---- */

/* 2^(n-1) = 1 modulo n? Square and double: no table. */
static uint64_t prime_fermat(const modulus *m) {
    uint64_t power[MONTGOMERY_WORDS];
    uint64_t residue[PRIME_LIMBS];
    const big n = modulus_value(m);
    VERIFY_CHECK(n.n == PRIME_LIMBS);
    montgomery_one(power, m);
    for (size_t i = PRIME_BITS; i-- > 1;) {
        /* The exponent is n - 1: n without its last bit. */
        montgomery_square(power, power, m);
        montgomery_double_if(power, big_bit(n, i), m);
    }
    montgomery_square(power, power, m);
    montgomery_leave(residue, power, m);
    return big_equal_u64(BIG_OF(residue), 1);
}

/* One round of Miller and Rabin with a random base a. With n - 1 = 2^s d, the usual form asks whether a^d = 1 or some a^(2^k d) = -1, k < s; the
 * same in other words: a^(n-1) = 1, and no square root of 1 other than 1 and -1 shows up among the a^((n-1)/2^k), k <= s. Here the last
 * 64 squarings are looked at, whatever s is, so that s stays secret. (Where s > 64, the round is a little weaker; that has the chance 2^-64.) */
static uint64_t prime_round(const modulus *m) {
    uint64_t base_d[PRIME_LIMBS];
    uint64_t high_d[PRIME_LIMBS];
    uint64_t minus_d[PRIME_LIMBS];
    uint64_t base[MONTGOMERY_WORDS];
    uint64_t power[MONTGOMERY_WORDS];
    uint64_t multiplied[MONTGOMERY_WORDS];
    const big x = BIG_OF(base_d);
    const big high = BIG_OF(high_d);
    const big minus = BIG_OF(minus_d); /* n - 1, and the exponent */
    const uint64_t one = 1;
    uint64_t composite = 0;
    (void)big_sub(minus, modulus_value(m), big_view(&one, 1));
    random_unit(x, modulus_value(m));
    montgomery_enter(base, x.d, m);
    big_shift_right(high, minus, 64);
    mod_exp(x, x, high, m);
    montgomery_enter(power, x.d, m);
    for (size_t i = 64; i-- > 0;) {
        const uint64_t trivial = big_equal_u64(x, 1) | big_equal(x, minus);
        const uint64_t bit = big_bit(minus, i);
        const uint64_t low = minus.d[0] & (UINT64_MAX >> (63 - i)); /* bit i and all below it */
        montgomery_square(power, power, m);
        montgomery_mul(multiplied, power, base, m);
        big_select(big_view(power, m->words), big_view(multiplied, m->words), big_view(power, m->words), bit);
        montgomery_leave(x.d, power, m);
        composite |= ct_is_zero(low) & big_equal_u64(x, 1) & (trivial ^ 1);
    }
    return big_equal_u64(x, 1) & (composite ^ 1);
}

static uint64_t prime_rounds(big n, unsigned rounds) {
    modulus m;
    uint64_t prime = 1;
    modulus_init(&m, n);
    for (unsigned i = 0; i < rounds; i++) {
        prime &= prime_round(&m);
    }
    return prime;
}

INTERNAL bool prime_is_safe(big n, unsigned rounds) {
    uint64_t half_d[PRIME_LIMBS];
    const big half = BIG_OF(half_d);
    VERIFY_CHECK(n.n == PRIME_LIMBS);
    big_shift_right(half, n, 1);
    uint64_t safe = big_is_odd(n) & big_is_odd(half);
    DECLASSIFY(&safe, sizeof safe); /* this, and what follows, is the answer */
    if (safe != 0) {
        safe = prime_rounds(half, rounds) & prime_rounds(n, rounds);
        DECLASSIFY(&safe, sizeof safe);
    }
    return safe != 0;
}

/* The candidate with the index i: q, and p = 2q + 1. */
static void prime_candidate(const prime_search *search, size_t i, big p, big q) {
    const uint64_t distance = 6 * (uint64_t)i;
    (void)big_add(q, BIG_OF(search->start), big_view(&distance, 1));
    big_shift_left(p, q, 1);
    p.d[0] |= 1;
}

/* The next candidates that the sieve has left, at most PRIME_BATCH; returns how many. */
static size_t prime_next_batch(prime_search *search, size_t *batch) {
    size_t len = 0;
    while (len < PRIME_BATCH && search->next < PRIME_WINDOW) {
        if (((search->sieve[search->next / 64] >> (search->next % 64)) & 1) == 0) {
            batch[len] = search->next;
            len++;
        }
        search->next++;
    }
    return len;
}

/* Fermat's test of q for all of a batch. */
static void prime_fermat_batch(const prime_search *search, uint64_t *passes, const size_t *batch, size_t len) {
    uint64_t p_d[PRIME_LIMBS];
    uint64_t q_d[PRIME_LIMBS];
    modulus q[PRIME_BATCH];
    for (size_t i = 0; i < PRIME_BATCH; i++) {
        prime_candidate(search, batch[i < len ? i : 0], BIG_OF(p_d), BIG_OF(q_d));
        modulus_init(&q[i], BIG_OF(q_d));
    }
    if (ifma_has_octets(&q[0])) {
        ifma_fermat_octet(passes, q);
    } else {
        for (size_t i = 0; i < len; i++) {
            passes[i] = prime_fermat(&q[i]);
        }
    }
    DECLASSIFY(passes, PRIME_BATCH * sizeof *passes); /* that a candidate, which is thrown away, is composite */
}

static void prime_test_step(prime_search *search, big p, big q) {
    size_t batch[PRIME_BATCH];
    uint64_t passes[PRIME_BATCH];
    modulus m;
    const size_t len = prime_next_batch(search, batch);
    if (len != 0) {
        prime_fermat_batch(search, passes, batch, len);
        search->tests += len;
    }
    for (size_t i = 0; i < len && search->rounds == 0; i++) {
        if (passes[i] != 0) {
            /* With q prime, 2^(2q) = 1 even proves p prime (Pocklington). */
            prime_candidate(search, batch[i], p, q);
            modulus_init(&m, p);
            uint64_t hope = prime_fermat(&m);
            DECLASSIFY(&hope, sizeof hope); /* as above */
            if (hope != 0) {
                search->rounds = 1;
                search->hope = batch[i];
                search->next = batch[i] + 1;
            }
        }
    }
    if (search->next == PRIME_WINDOW && search->rounds == 0) {
        search->sieved = 0;
    }
}

/* Rounds for q, then as many for p. */
static bool prime_confirm_step(prime_search *search, big p, big q) {
    uint64_t prime = 1;
    prime_candidate(search, search->hope, p, q);
    for (unsigned i = 0; i < PRIME_BATCH && search->rounds <= 2 * PRIME_ROUNDS; i++) {
        prime &= prime_rounds(search->rounds <= PRIME_ROUNDS ? q : p, 1);
        search->rounds++;
    }
    DECLASSIFY(&prime, sizeof prime);
    const bool found = prime != 0 && search->rounds > 2 * PRIME_ROUNDS;
    if (prime == 0) {
        search->rounds = 0;
    } else if (found) {
        /* The next one starts afresh: two primes of one window would tell of each other. */
        search->rounds = 0;
        search->sieved = 0;
        search->tests = 0;
        secret_wipe(search->start, sizeof search->start);
        secret_wipe(search->sieve, sizeof search->sieve);
    }
    return found;
}

INTERNAL bool prime_search_step(prime_search *search, big p, big q) {
    VERIFY_CHECK(p.n == PRIME_LIMBS && q.n == PRIME_LIMBS);
    if (search->sieved == 0) {
        prime_begin_window(search);
    }
    bool found = false;
    if (search->sieved < search->small_len) {
        prime_sieve_step(search);
    } else if (search->rounds == 0) {
        prime_test_step(search, p, q);
    } else {
        found = prime_confirm_step(search, p, q);
    }
    if (!found) {
        big_wipe(p);
        big_wipe(q);
    }
    return found;
}

#endif
