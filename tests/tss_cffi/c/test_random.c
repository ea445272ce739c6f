#ifndef TSS_SEEDED
#define TSS_SEEDED
#endif

#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

/* A system that hands out a little at a time, is interrupted, or has nothing. */
static size_t most = 256;
static int interruptions, broken;

static ssize_t test_getrandom(void *data, size_t len, unsigned flags) {
    if (broken != 0) {
        errno = ENOSYS;
        return -1;
    }
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    return getrandom(data, len < most ? len : most, flags);
}

#define getrandom test_getrandom

#include "test.h"

#include <openssl/sha.h>
#include <sys/wait.h>

static void the_system_is_asked_until_it_has_given_all(void) {
    uint8_t bytes[1000] = {0};
    most = 7;
    interruptions = 3;
    CHECK(random_works() && interruptions == 0);
    interruptions = 2;
    random_bytes(bytes, sizeof bytes);
    size_t zeros = 0;
    for (size_t i = 0; i < sizeof bytes; i++) {
        zeros += bytes[i] == 0 ? 1 : 0;
    }
    CHECK(zeros < 40 && interruptions == 0);
    random_bytes(bytes, 0);
    most = 256;
}

static void without_randomness_there_is_nothing_to_do(void) {
    broken = 1;
    CHECK(!random_works());
    const pid_t child = fork();
    if (child == 0) {
        uint8_t byte;
        (void)signal(SIGABRT, SIG_DFL);
        random_bytes(&byte, 1);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    broken = 0;
}

static void a_seed_gives_the_same_stream(void) {
    uint8_t seed32[32], first[600], again[600], block[40] = {0}, expected[32];
    memset(seed32, 7, sizeof seed32);
    random_seed(seed32);
    random_bytes(first, sizeof first);
    random_seed(seed32);
    for (size_t done = 0; done < sizeof again;) {
        const size_t part = 1 + done % 50 < sizeof again - done ? 1 + done % 50 : sizeof again - done;
        random_bytes(again + done, part);
        done += part;
    }
    CHECK(memcmp(first, again, sizeof first) == 0);
    /* As the header says: SHA-256(seed32 || counter) */
    memcpy(block, seed32, 32);
    for (uint8_t i = 0; i < 18; i++) {
        block[39] = i;
        (void)SHA256(block, sizeof block, expected);
        CHECK(memcmp(first + 32 * (size_t)i, expected, 32) == 0);
    }
    seed32[0] ^= 1;
    random_seed(seed32);
    random_bytes(again, 32);
    CHECK(memcmp(first, again, 32) != 0);
    random_seed(NULL);
    random_bytes(first, 32);
    random_seed(seed32);
    random_bytes(again, 32);
    random_seed(NULL);
    CHECK(memcmp(first, again, 32) != 0);
}

int main(void) {
    the_system_is_asked_until_it_has_given_all();
    without_randomness_there_is_nothing_to_do();
    a_seed_gives_the_same_stream();
    return 0;
}
