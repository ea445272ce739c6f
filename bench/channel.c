/* Times the channel's pieces: prints one line of JSON for each, {"what", "bytes", "us": [median, min, max]}. Called by bench/channel.py. */

#include "../tss_cffi/src/tss.c"

#include <stdio.h>
#include <time.h>

enum { SAMPLES_MAX = 1001, MESSAGE_MAX = 256 * 1024 };

static uint8_t *message, *sealed, *opened; /* message and opened in the arena */
static size_t message_len;
static uint8_t key32[32], transcript32[32], signature64[64], x25519[2][2][32], ed25519[2][32];
static span body;
static crypto_identity *identity;

static double now_us(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static void must(bool holds) {
    if (!holds) {
        (void)fprintf(stderr, "bench: a step failed\n");
        exit(1);
    }
}

static void do_seal(void) {
    must(crypto_seal(sealed, key32, 1, (span){transcript32, 32}, (span){signature64, 64}, (span){message, message_len}));
}

static void do_open(void) {
    must(crypto_open(opened, key32, 1, (span){transcript32, 32}, (span){sealed, 64 + message_len + CRYPTO_TAG_LEN}));
}

static void do_hash(void) {
    uint8_t digest[32];
    must(crypto_sha256_secret(digest, (span){message, message_len}));
}

static void do_sign(void) {
    must(crypto_ed25519_sign(signature64, ed25519[0], ed25519[1], CHANNEL_TAG_BROADCAST, body));
}

static void do_verify(void) {
    must(crypto_ed25519_verify(ed25519[1], CHANNEL_TAG_BROADCAST, body, signature64));
}

static void do_make_keys(void) {
    must(crypto_make_keys(x25519[0][0], x25519[0][1], ed25519[0], ed25519[1]));
}

static void do_agree(void) {
    uint8_t send[32], receive[32];
    must(crypto_agree(send, receive, x25519[0][0], x25519[0][1], x25519[1][1], transcript32, 1, 2) == CRYPTO_AGREED);
}

static void do_identity(void) {
    /* RFC 6979, A.2.5: key and r of "sample" with SHA-256; the signature need not be right, the work is the same. */
    static const uint8_t identity33[33] = {0x03, 0x60, 0xfe, 0xd4, 0xba, 0x25, 0x5a, 0x9d, 0x31, 0xc9, 0x61,
                                           0xeb, 0x74, 0xc6, 0x35, 0x6d, 0x68, 0xc0, 0x49, 0xb8, 0x92, 0x3b,
                                           0x61, 0xfa, 0x6c, 0xe6, 0x69, 0x62, 0x2e, 0x60, 0xf2, 0x9f, 0xb6};
    const uint8_t rs64[64] = {1, [32] = 1};
    if (identity == NULL) {
        identity = crypto_identity_open(identity33);
    }
    must(identity != NULL && !crypto_identity_verify(identity, key32, rs64));
}

static void do_warm_up(void) { must(crypto_warm_up()); }

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *what, void (*step)(void), size_t runs) {
    static double us[SAMPLES_MAX];
    step();
    for (size_t i = 0; i < runs; i++) {
        const double before = now_us();
        step();
        us[i] = now_us() - before;
    }
    qsort(us, runs, sizeof us[0], ascending);
    (void)printf("{\"what\": \"%s\", \"bytes\": %zu, \"us\": [%.2f, %.2f, %.2f]}\n", what, message_len, us[runs / 2], us[0],
                 us[runs - 1]);
}

int main(int argc, char **argv) {
    const size_t runs = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    must(runs >= 1 && runs <= SAMPLES_MAX);
    must(tss_open((size_t)8 * 1024 * 1024) == TSS_OK && crypto_warm_up());
    message = secret_alloc(MESSAGE_MAX);
    opened = secret_alloc(MESSAGE_MAX + 64);
    sealed = malloc(MESSAGE_MAX + 64 + CRYPTO_TAG_LEN);
    must(message != NULL && opened != NULL && sealed != NULL);
    must(crypto_make_keys(x25519[1][0], x25519[1][1], ed25519[0], ed25519[1]));
    static uint8_t statement[BROADCAST_BODY_LEN];
    body = (span){statement, sizeof statement};
    measure("once per process: warm-up", do_warm_up, runs);
    measure("ephemeral keys", do_make_keys, runs);
    measure("keys of a pair", do_agree, runs);
    measure("identity signature, verify", do_identity, runs);
    measure("broadcast signature, make", do_sign, runs);
    measure("broadcast signature, verify", do_verify, runs);
    static const size_t lengths[] = {100, 2300, 6800, 134000, MESSAGE_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        message_len = lengths[i];
        measure("seal", do_seal, runs);
        measure("open", do_open, runs);
        measure("hash", do_hash, runs);
    }
    crypto_identity_close(identity);
    secret_free(message);
    secret_free(opened);
    free(sealed);
    must(tss_close() == TSS_OK);
    return 0;
}
