/* Times the channel's pieces, and all of it in a signing: prints one line of JSON for each, {"what", "bytes", "us": [median, min, max]}.
 * Called by bench/channel.py. */

#include "../tss_cffi/src/tss.c"

#include "../tests/tss_cffi/channel/mute.h"

#include <stdio.h>
#include <time.h>

enum { SAMPLES_MAX = 1001, MESSAGE_MAX = 256 * 1024 };

static uint8_t *message, *sealed, *opened; /* message and opened in the arena */
static size_t message_len;
static uint8_t key32[32], transcript32[32], signature64[64], x25519[2][2][32], ed25519[2][32];
static span body;
static crypto_tools tools;

static double now_us(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static void do_seal(void) {
    must(crypto_seal(&tools, sealed, key32, 1, (span){transcript32, 32}, (span){signature64, 64}, (span){message, message_len}));
}

static void do_open(void) {
    must(crypto_open(&tools, opened, key32, 1, (span){transcript32, 32}, (span){sealed, 64 + message_len + CRYPTO_TAG_LEN}));
}

static void do_hash(void) {
    uint8_t digest[32];
    must(crypto_sha256_secret(&tools, digest, (span){message, message_len}));
}

static void do_sign(void) {
    must(crypto_ed25519_sign(signature64, ed25519[0], ed25519[1], CHANNEL_TAG_BROADCAST, body));
}

static void do_verify(void) {
    must(crypto_ed25519_verify(ed25519[1], CHANNEL_TAG_BROADCAST, body, signature64));
}

static void do_exchange_key(void) {
    must(crypto_x25519_public(x25519[0][1], x25519[0][0]));
}

static void do_signing_key(void) {
    must(crypto_ed25519_public(ed25519[1], ed25519[0]));
}

static void do_agree(void) {
    uint8_t send[32], receive[32];
    must(crypto_agree(send, receive, x25519[0][0], x25519[0][1], x25519[1][1], transcript32, 1, 2) == CRYPTO_AGREED);
}

static void do_identity(void) {
    /* The signature need not be right, the work is the same. */
    const uint8_t rs64[64] = {1, [32] = 1};
    must(!crypto_identity_verify(identity[0], key32, rs64));
}

static void do_identity_open(void) {
    crypto_identity *opened_identity = crypto_identity_open(terms.members[0].identity33);
    must(opened_identity != NULL);
    crypto_identity_close(opened_identity);
}

/* ---- All of a signing ---- */

static tss_channel *ends[SEATS_MAX];
static tss_party *parties[SEATS_MAX];

/* What a custodian does when the state asks for it. Returns the time that is not the channel's. */
static double advance(size_t who) {
    uint8_t digest[32], rs64[64];
    const double before = now_us();
    double away = 0;
    if (tss_channel_state_of(ends[who]) == TSS_CHANNEL_AGREED) {
        parties[who] = mute_begin((uint32_t)who + 1);
        away = now_us() - before;
        must(tss_channel_attach(ends[who], parties[who], 0) == TSS_OK);
    }
    if (tss_channel_state_of(ends[who]) == TSS_CHANNEL_RESULT) {
        must(tss_channel_confirmation_digest(ends[who], digest, NULL, 0) == TSS_OK);
        const double then = now_us();
        identity_sign(rs64, who, digest);
        away += now_us() - then;
        must(tss_channel_confirm(ends[who], rs64, 0) == TSS_OK);
    }
    return away;
}

static double sealed_signing(void) {
    const size_t n = terms.members_len;
    uint8_t digest[32], rs64[64];
    double away = 0;
    const double before = now_us();
    for (size_t i = 0; i < n; i++) {
        tss_ceremony own = terms;
        own.seat = (uint32_t)i + 1;
        must(tss_channel_new(&ends[i], &own) == TSS_OK);
        tss_channel_hello_digest(ends[i], digest);
        const double then = now_us();
        identity_sign(rs64, i, digest);
        away += now_us() - then;
        must(tss_channel_start(ends[i], rs64) == TSS_OK);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            tss_frame frame;
            while (tss_channel_outgoing(ends[i], &frame) == TSS_OK) {
                moved = true;
                for (size_t to = 0; to < n; to++) {
                    if (to != i && (frame.to == TSS_BROADCAST || frame.to == to + 1)) {
                        (void)!tss_channel_receive(ends[to], frame.data, frame.data_len, 0);
                        away += advance(to);
                    }
                }
            }
        }
    }
    const double after = now_us();
    for (size_t i = 0; i < n; i++) {
        must(tss_channel_state_of(ends[i]) == TSS_CHANNEL_COMPLETE);
        tss_channel_free(ends[i]);
        tss_party_free(parties[i]);
    }
    return (after - before - away) / (double)n;
}

static double bare_signing(void) {
    const size_t n = terms.members_len;
    for (size_t i = 0; i < n; i++) {
        parties[i] = mute_begin((uint32_t)i + 1);
    }
    const double before = now_us();
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            tss_message text;
            while (tss_party_outgoing(parties[i], &text) == TSS_OK) {
                moved = true;
                for (size_t to = 0; to < n; to++) {
                    if (to != i && (text.to == TSS_BROADCAST || text.to == to + 1)) {
                        must(tss_party_receive(parties[to], (uint32_t)i + 1, text.class_, text.data, text.data_len) == TSS_OK);
                    }
                }
            }
        }
    }
    const double after = now_us();
    for (size_t i = 0; i < n; i++) {
        must(tss_party_state(parties[i]) == TSS_DONE);
        tss_party_free(parties[i]);
    }
    return (after - before) / (double)n;
}

static void do_warm_up(void) { must(crypto_warm_up()); }

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double us[SAMPLES_MAX];

static void tell(const char *what, size_t runs) {
    qsort(us, runs, sizeof us[0], ascending);
    (void)printf("{\"what\": \"%s\", \"bytes\": %zu, \"us\": [%.2f, %.2f, %.2f]}\n", what, message_len, us[runs / 2], us[0],
                 us[runs - 1]);
}

static void measure(const char *what, void (*step)(void), size_t runs) {
    step();
    for (size_t i = 0; i < runs; i++) {
        const double before = now_us();
        step();
        us[i] = now_us() - before;
    }
    tell(what, runs);
}

/* What the channel of one party costs in a signing, whatever the protocol computes. */
static void measure_signings(size_t runs) {
    static const char *const what[SEATS_MAX + 1] = {[2] = "all of a signing by 2", [3] = "all of a signing by 3", [5] = "all of a signing by 5"};
    for (uint16_t n = 2; n <= SEATS_MAX; n++) {
        terms.members_len = n;
        (void)sealed_signing();
        for (size_t i = 0; i < runs && what[n] != NULL; i++) {
            us[i] = sealed_signing() - bare_signing();
        }
        if (what[n] != NULL) {
            tell(what[n], runs);
        }
    }
}

int main(int argc, char **argv) {
    const size_t runs = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    must(runs >= 1 && runs <= SAMPLES_MAX);
    must(tss_open((size_t)8 * 1024 * 1024) == TSS_OK && crypto_warm_up());
    message = secret_alloc(MESSAGE_MAX);
    opened = secret_alloc(MESSAGE_MAX + 64);
    sealed = malloc(MESSAGE_MAX + 64 + CRYPTO_TAG_LEN);
    must(message != NULL && opened != NULL && sealed != NULL);
    random_bytes(x25519[0][0], 32);
    random_bytes(x25519[1][0], 32);
    random_bytes(ed25519[0], 32);
    must(crypto_x25519_public(x25519[1][1], x25519[1][0]));
    must(crypto_tools_open(&tools));
    static uint8_t statement[BROADCAST_BODY_LEN];
    body = (span){statement, sizeof statement};
    measure("once per process: warm-up", do_warm_up, runs);
    measure("ephemeral X25519 key", do_exchange_key, runs);
    measure("ephemeral Ed25519 key", do_signing_key, runs);
    measure("keys of a pair", do_agree, runs);
    mute_open();
    measure("identity key, parse", do_identity_open, runs);
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
    message_len = 0;
    measure_signings(runs);
    mute_close();
    crypto_tools_close(&tools);
    secret_free(message);
    secret_free(opened);
    free(sealed);
    must(tss_close() == TSS_OK);
    return 0;
}
