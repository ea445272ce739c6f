#include "test.h"

static void small_primes_are_all_there(void *unused) {
    (void)unused;
    prime_search *search = prime_search_new();
    CHECK(search != NULL && search->small_len == 82025 - 2); /* all below 2^20 but 2 and 3 */
    mpz_t z;
    mpz_init_set_ui(z, 4);
    for (size_t i = 0; i < search->small_len; i += 97) {
        mpz_set_ui(z, search->small[i]);
        CHECK(mpz_probab_prime_p(z, 20) != 0);
    }
    for (size_t i = 0; i < 1000; i++) {
        mpz_set_ui(z, search->small[i]);
        mpz_nextprime(z, z);
        CHECK(mpz_cmp_ui(z, search->small[i + 1]) == 0);
    }
    mpz_clear(z);
    prime_search_free(search);
    prime_search_free(NULL);
}

static void the_sieve_drops_multiples_and_nothing_else(void *unused) {
    (void)unused;
    prime_search *search = prime_search_new();
    uint64_t p_d[PRIME_LIMBS], q_d[PRIME_LIMBS];
    mpz_t p, q, common;
    CHECK(search != NULL);
    mpz_inits(p, q, common, NULL);
    size_t steps = 0;
    while (search->sieved < search->small_len) {
        CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)));
        steps++;
    }
    CHECK(steps > 1);
    for (size_t i = 0; i < PRIME_WINDOW; i += 1 + test_below(PRIME_WINDOW / ROUNDS)) {
        prime_candidate(search, i, BIG_OF(p_d), BIG_OF(q_d));
        test_to_mpz(p, BIG_OF(p_d));
        test_to_mpz(q, BIG_OF(q_d));
        CHECK(mpz_sizeinbase(p, 2) == 1024 && mpz_tstbit(p, 1022) == 1 && mpz_sizeinbase(q, 2) == 1023);
        CHECK(mpz_fdiv_ui(q, 6) == 5);
        mpz_mul_2exp(common, q, 1);
        mpz_add_ui(common, common, 1);
        CHECK(mpz_cmp(common, p) == 0);
        bool divisible = false;
        for (size_t j = 0; j < search->small_len && !divisible; j++) {
            divisible = mpz_divisible_ui_p(p, search->small[j]) != 0 || mpz_divisible_ui_p(q, search->small[j]) != 0;
        }
        CHECK((((search->sieve[i / 64] >> (i % 64)) & 1) != 0) == divisible);
    }
    mpz_clears(p, q, common, NULL);
    prime_search_free(search);
}

static void number_of(uint64_t *d, const mpz_t z) {
    test_from_mpz(big_view(d, PRIME_LIMBS), z);
}

static bool rounds_pass(const mpz_t z, unsigned rounds) {
    uint64_t d[PRIME_LIMBS];
    number_of(d, z);
    return prime_rounds(BIG_OF(d), rounds) == 1;
}

static bool fermat_passes(const mpz_t z) {
    uint64_t d[PRIME_LIMBS];
    modulus m;
    number_of(d, z);
    modulus_init(&m, BIG_OF(d));
    return prime_fermat(&m) == 1;
}

/* A random 1024-bit prime p where 2^power, but no higher power of 2, divides p - 1. */
static void some_prime(mpz_t p, unsigned power) {
    do {
        mpz_urandomb(p, test_state, 1024);
        mpz_setbit(p, 1023);
        mpz_setbit(p, power);
        for (unsigned i = 1; i < power; i++) {
            mpz_clrbit(p, i);
        }
        mpz_setbit(p, 0);
    } while (mpz_probab_prime_p(p, 15) == 0);
}

static void primes_pass_and_composites_do_not(void *unused) {
    (void)unused;
    mpz_t p, q, n;
    mpz_inits(p, q, n, NULL);
    for (unsigned power = 1; power <= (ROUNDS < 100 ? 2 : 9); power += 1 + power / 3) {
        some_prime(p, power);
        CHECK(rounds_pass(p, 2) && fermat_passes(p));
    }
    for (int i = 0; i < (ROUNDS < 100 ? 1 : 10); i++) {
        do {
            mpz_urandomb(p, test_state, 512);
            mpz_setbit(p, 511);
            mpz_setbit(p, 510);
            mpz_setbit(p, 0);
        } while (mpz_probab_prime_p(p, 15) == 0);
        mpz_nextprime(q, p);
        mpz_mul(n, p, q);
        CHECK(!rounds_pass(n, 3) && !fermat_passes(n));
        mpz_mul(n, p, p);
        CHECK(!rounds_pass(n, 3));
    }
    mpz_clears(p, q, n, NULL);
}

/* (6k+1)(12k+1)(18k+1) with three primes is a Carmichael number: a^(n-1) = 1 for all units, and only the roots of 1 give it away.
 * k = 2^337 + 88708 is the first from 2^337 on. */
static void carmichael_numbers_do_not_pass(void *unused) {
    (void)unused;
    mpz_t k, n, a;
    mpz_inits(k, n, a, NULL);
    mpz_set_ui(k, 88708);
    mpz_setbit(k, 337);
    mpz_set_ui(n, 1);
    for (unsigned long i = 1; i <= 3; i++) {
        mpz_mul_ui(a, k, 6 * i);
        mpz_add_ui(a, a, 1);
        CHECK(mpz_probab_prime_p(a, 2) != 0);
        mpz_mul(n, n, a);
    }
    CHECK(mpz_sizeinbase(n, 2) > 960 && mpz_sizeinbase(n, 2) <= 1024);
    CHECK(fermat_passes(n));
    int passed = 0;
    for (int i = 0; i < (ROUNDS < 100 ? 4 : 40); i++) {
        passed += rounds_pass(n, 1) ? 1 : 0;
    }
    CHECK(passed < (ROUNDS < 100 ? 4 : 20)); /* each round passes with a chance of at most 1/4 */
    mpz_clears(k, n, a, NULL);
}

static void a_search_finds_fresh_safe_primes(void *unused) {
    (void)unused;
    prime_search *search = prime_search_new();
    uint64_t p_d[PRIME_LIMBS], q_d[PRIME_LIMBS], last[PRIME_LIMBS] = {0};
    const big p = BIG_OF(p_d), q = BIG_OF(q_d);
    mpz_t x, y;
    CHECK(search != NULL);
    mpz_inits(x, y, NULL);
    for (int i = 0; i < 3; i++) {
        uint16_t permille = prime_search_permille(search);
        CHECK(permille == 0);
        while (!prime_search_step(search, p, q)) {
            CHECK(big_is_zero(p) == 1 && big_is_zero(q) == 1);
            CHECK(prime_search_permille(search) >= permille && prime_search_permille(search) <= 999);
            permille = prime_search_permille(search);
        }
        test_to_mpz(x, p);
        test_to_mpz(y, q);
        CHECK(mpz_sizeinbase(x, 2) == 1024 && mpz_tstbit(x, 1022) == 1);
        CHECK(mpz_probab_prime_p(x, 40) != 0 && mpz_probab_prime_p(y, 40) != 0);
        mpz_mul_2exp(y, y, 1);
        mpz_add_ui(y, y, 1);
        CHECK(mpz_cmp(x, y) == 0);
        CHECK(big_equal(p, BIG_OF(last)) == 0);
        big_set(BIG_OF(last), p);
        CHECK(prime_is_safe(p, 2));
        CHECK(search->sieved == 0 && big_is_zero(BIG_OF(search->start)) == 1);

        /* Prime, but not safe; safe's half, but not prime; even; even half. */
        some_prime(x, 2);
        number_of(p_d, x);
        CHECK(!prime_is_safe(p, 2));
        do {
            mpz_urandomb(y, test_state, 1023);
            mpz_setbit(y, 1022);
            mpz_nextprime(y, y);
            mpz_mul_2exp(x, y, 1);
            mpz_add_ui(x, x, 1);
        } while (mpz_probab_prime_p(x, 15) != 0);
        number_of(p_d, x);
        CHECK(!prime_is_safe(p, 2));
        p_d[0] ^= 1;
        CHECK(!prime_is_safe(p, 2));
        p_d[0] ^= 3;
        CHECK(!prime_is_safe(p, 2));
    }
    mpz_clears(x, y, NULL);
    prime_search_free(search);
}

/* The window is at its end: a new one begins. */
static void a_search_goes_on_to_another_window(void *unused) {
    (void)unused;
    prime_search *search = prime_search_new();
    uint64_t p_d[PRIME_LIMBS], q_d[PRIME_LIMBS], start[PRIME_LIMBS];
    CHECK(search != NULL);
    do {
        CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)));
    } while (search->sieved < search->small_len);
    memcpy(start, search->start, sizeof start);
    memset(search->sieve, 0xff, sizeof search->sieve);
    CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)) && search->sieved == 0);
    CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)));
    CHECK(search->sieved > 0 && memcmp(start, search->start, sizeof start) != 0);
    prime_search_free(search);
}

/* What passes Fermat's tests and is no prime is dropped, and the search goes on behind it. */
static void a_search_survives_a_false_hope(void *unused) {
    (void)unused;
    prime_search *search = prime_search_new();
    uint64_t p_d[PRIME_LIMBS], q_d[PRIME_LIMBS];
    CHECK(search != NULL);
    do {
        CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)));
    } while (search->sieved < search->small_len);
    memset(search->sieve, 0xff, sizeof search->sieve);
    /* A multiple of 5 is none: of five candidates, 6 apart, one. Any other number might be a prime. */
    mpz_t q;
    mpz_init(q);
    do {
        prime_candidate(search, search->next, BIG_OF(p_d), BIG_OF(q_d));
        test_to_mpz(q, BIG_OF(q_d));
        search->hope = search->next++;
    } while (mpz_divisible_ui_p(q, 5) == 0);
    mpz_clear(q);
    const size_t next = search->next;
    search->rounds = 1;
    CHECK(!prime_search_step(search, BIG_OF(p_d), BIG_OF(q_d)));
    CHECK(search->rounds == 0 && search->next == next && big_is_zero(BIG_OF(p_d)) == 1);
    prime_search_free(search);
}

static void no_room_no_search(void *unused) {
    (void)unused;
    void *block = secret_alloc((1 << 20) - SECRET_STACK_LEN - 32 * 1024);
    CHECK(block != NULL && prime_search_new() == NULL);
    secret_free(block);
}

int main(void) {
    test_begin(1 << 20);
    test_secretly(small_primes_are_all_there);
    test_secretly(the_sieve_drops_multiples_and_nothing_else);
    test_secretly(primes_pass_and_composites_do_not);
    test_secretly(carmichael_numbers_do_not_pass);
    test_secretly(a_search_goes_on_to_another_window);
    test_secretly(a_search_survives_a_false_hope);
    test_secretly(no_room_no_search);
    if (ROUNDS >= 100) {
        test_secretly(a_search_finds_fresh_safe_primes);
    }
    test_end();
    return 0;
}
