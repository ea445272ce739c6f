/* Memory that is not there: each place that allocates is refused once, whatever it allocates from (the arena, a secret stack, the heap)
 * and each object that is asked of libcrypto. Whoever asked must say so, leave nothing behind and blame nobody.
 *
 * The run goes on in a copy of the process, a fork, which gets NULL and has to bring its ceremony to an end; the original gets its memory
 * and goes on to the next place. A place is the chain of our own functions that led to it.
 *
 * Arguments: tss-lib's save data of seats 1 and 2 of a 2-of-2, and two of its pre-parameter sets. */

#include <execinfo.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                   \
        }                                                                               \
    } while (0)

/* ---- Refusing ---- */

/* X_new of libcrypto calls its allocator, which calls ours. What it asks for deeper inside is for its own caches, and its own affair. */
enum { PLACES_MAX = 4096, FRAMES_MAX_DEPTH = 60, LIBCRYPTO_FRAMES_MAX = 2 };

extern const char __executable_start, etext;

static bool armed = false;  /* what is allocated now may be refused */
static bool refused = false; /* this is a copy whose refusal has been */
static size_t places = 0;

static bool seen_before(uint64_t place) {
    static uint64_t seen[PLACES_MAX];
    for (size_t i = 0; i < places; i++) {
        if (seen[i] == place) {
            return true;
        }
    }
    CHECK(places < PLACES_MAX);
    seen[places++] = place;
    return false;
}

static bool refuse_here(void) {
    if (!armed || refused) {
        return false;
    }
    void *frame[FRAMES_MAX_DEPTH];
    const int depth = backtrace(frame, FRAMES_MAX_DEPTH);
    uint64_t place = 0;
    int foreign = 0; /* frames of libcrypto that lie between us and ourselves */
    int between = 0;
    for (int i = 0; i < depth; i++) {
        const char *at = frame[i];
        if (at >= &__executable_start && at < &etext) {
            place = (place ^ (uint64_t)(at - &__executable_start)) * UINT64_C(0x100000001b3);
            between = foreign > between ? foreign : between;
            foreign = 0;
        } else {
            foreign++;
        }
    }
    if (between > LIBCRYPTO_FRAMES_MAX || seen_before(place)) {
        return false;
    }
    (void)fflush(NULL);
    const pid_t copy = fork();
    CHECK(copy >= 0);
    if (copy == 0) {
        refused = true;
        return true;
    }
    int status = 0;
    CHECK(waitpid(copy, &status, 0) == copy);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        (void)fprintf(stderr, "refused here:\n");
        backtrace_symbols_fd(frame, depth, 2);
        exit(1);
    }
    return false;
}

static void *test_malloc(size_t len) { return refuse_here() ? NULL : malloc(len); }
static void *test_calloc(size_t count, size_t len) { return refuse_here() ? NULL : calloc(count, len); }
static void *test_realloc(void *data, size_t len) { return refuse_here() ? NULL : realloc(data, len); }
static void *test_aligned_alloc(size_t alignment, size_t len) { return refuse_here() ? NULL : aligned_alloc(alignment, len); }

/* A copy has the arena, too. */
static int test_madvise(void *data, size_t len, int advice) { return advice == MADV_DONTFORK ? 0 : madvise(data, len, advice); }

#define madvise test_madvise
#define pthread_atfork(before, parent, child) ((void)(child), 0)

#include "secret_impl.h"

#undef madvise
#undef pthread_atfork

static void *test_secret_alloc(size_t len) { return refuse_here() ? NULL : secret_alloc(len); }

static bool test_secret_call(void (*function)(void *argument), void *argument) {
    return (secret_inside != NULL || !refuse_here()) && secret_call(function, argument);
}

#define malloc test_malloc
#define calloc test_calloc
#define realloc test_realloc
#define aligned_alloc test_aligned_alloc
#define secret_alloc test_secret_alloc
#define secret_call test_secret_call

/* The core, and with it a ceremony that computes nothing, identities and terms for the channel. */
#include "../../fuzz/channel.c"

/* ---- What is told ---- */

static bool well = true; /* nothing has been reported yet */

static void keep_nothing(void) {
    EVP_PKEY_free(identity[0]);
    EVP_PKEY_free(identity[1]);
}

/* Did the call go well? If not, then for want of memory, and only in a copy. */
static bool went_well(tss_status status) {
    if (status != TSS_OK) {
        CHECK(refused && status == TSS_MEMORY);
        well = false;
    }
    return status == TSS_OK;
}

/* As above, where a key or a signature that libcrypto has no room for counts as one that it does not take. */
static bool channel_went_well(tss_status status) {
    return went_well(refused && (status == TSS_MISUSE || status == TSS_REFUSED) ? TSS_MEMORY : status);
}

static void party_went(const tss_party *party) {
    tss_fault fault;
    tss_party_fault(party, &fault);
    if (tss_party_state(party) == TSS_FAILED) {
        CHECK(refused && fault.reason == TSS_REASON_INTERNAL && fault.culprits_len == 0);
        well = false;
    }
}

/* The end of a part. A copy ends here: it has told of its refusal, but where that was made good, and cleaned up. */
static void part_ends(bool must_tell) {
    armed = false;
    if (refused) {
        CHECK(!must_tell || !well);
        keep_nothing();
        CHECK(tss_close() == TSS_OK); /* nothing is left in the arena */
        exit(0);                      /* nor on the heap, as the sanitizer finds now */
    }
    CHECK(well);
}

/* ---- Threshold ECDSA ---- */

static const uint32_t seats[2] = {1, 2};
static const uint8_t digest32[32] = {7};

static tss_secret *file_bytes(const char *path) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    const long len = ftell(file);
    CHECK(len > 0 && fseek(file, 0, SEEK_SET) == 0);
    tss_secret *bytes;
    CHECK(tss_secret_new(&bytes, (size_t)len) == TSS_OK);
    CHECK(fread(tss_secret_data(bytes), 1, (size_t)len, file) == (size_t)len);
    CHECK(fclose(file) == 0);
    return bytes;
}

/* A party that could not take a message can be given it again. */
static bool carry(tss_party *from, tss_party *to, uint32_t seat) {
    tss_message message;
    bool moved = false;
    while (tss_party_state(to) != TSS_FAILED && tss_party_outgoing(from, &message) == TSS_OK) {
        if (tss_party_receive(to, seat, message.class_, message.data, message.data_len) == TSS_MEMORY) {
            CHECK(refused);
            well = false;
            CHECK(tss_party_receive(to, seat, message.class_, message.data, message.data_len) == TSS_OK);
        }
        party_went(to);
        moved = true;
    }
    return moved;
}

static bool hold(tss_party *const *party) {
    while (carry(party[0], party[1], 1) | carry(party[1], party[0], 2)) {
    }
    return tss_party_state(party[0]) == TSS_DONE && tss_party_state(party[1]) == TSS_DONE;
}

static void prepare(tss_secret **prepared, const char *path) {
    uint8_t out32[4 * 32];
    size_t len = 4;
    tss_secret *json = file_bytes(path);
    armed = true;
    if (went_well(tss_seeded_prepared(prepared, TSS_GG18_V2, json))) {
        (void)went_well(tss_prepared_fingerprints(out32, &len, *prepared));
    }
    armed = false;
    tss_secret_free(json);
}

static void make_key(const char *const *paths) {
    tss_secret *prepared[2] = {NULL, NULL};
    tss_party *party[2] = {NULL, NULL};
    prepare(&prepared[0], paths[0]);
    prepare(&prepared[1], paths[1]);
    armed = true;
    bool open = prepared[0] != NULL && prepared[1] != NULL;
    for (size_t i = 0; open && i < 2; i++) {
        open = went_well(tss_keygen_begin(&party[i], TSS_GG18_V3, seats[i], seats, 2, 2, prepared[i], NULL));
    }
    if (open && hold(party)) {
        tss_secret *share = NULL;
        CHECK(tss_keygen_result(party[0], &share) == TSS_OK);
        tss_secret_free(share);
    }
    for (size_t i = 0; i < 2; i++) {
        tss_party_free(party[i]);
        tss_secret_free(prepared[i]);
    }
    part_ends(true);
}

static void load(tss_share **share, const char *path) {
    tss_secret *json = file_bytes(path);
    tss_secret *bytes = NULL;
    tss_secret *exported = NULL;
    tss_share *proven = NULL;
    uint8_t out32[32 * FINGERPRINTS_MAX];
    size_t len = FINGERPRINTS_MAX;
    armed = true;
    if (went_well(tss_share_import(&bytes, TSS_GG18_V2, 2, json)) && went_well(tss_share_load(share, bytes))
        && went_well(tss_share_load_proven(&proven, bytes))
        && went_well(tss_share_fingerprints(out32, &len, *share)) && went_well(tss_seeded_export(&exported, *share))) {
        CHECK(tss_secret_len(exported) > 1000);
    }
    armed = false;
    tss_share_free(proven);
    tss_secret_free(json);
    tss_secret_free(bytes);
    tss_secret_free(exported);
}

static void sign_with_it(const char *const *paths) {
    tss_share *share[2] = {NULL, NULL};
    tss_party *party[2] = {NULL, NULL};
    load(&share[0], paths[0]);
    load(&share[1], paths[1]);
    armed = true;
    bool open = share[0] != NULL && share[1] != NULL;
    for (size_t i = 0; open && i < 2; i++) {
        open = went_well(tss_signing_begin(&party[i], share[i], seats, 2, digest32, NULL));
    }
    if (open && hold(party)) {
        uint8_t signature64[64];
        uint8_t recovery_id;
        CHECK(tss_signing_result(party[0], signature64, &recovery_id) == TSS_OK);
    }
    for (size_t i = 0; i < 2; i++) {
        tss_party_free(party[i]);
        tss_share_free(share[i]);
    }
    part_ends(true);
}

static void search_for_primes(void) {
    tss_prepare *search = NULL;
    tss_secret *found = NULL;
    uint16_t permille;
    armed = true;
    if (went_well(tss_prepare_begin(&search, TSS_GG18_V2))) {
        const tss_status status = tss_prepare_step(search, &found, &permille);
        (void)(status == TSS_MORE || went_well(status));
        CHECK(found == NULL);
    }
    tss_prepare_free(search);
    part_ends(true);
}

/* ---- The channel ---- */

/* Frames that got lost for want of memory are sent again when the time has come. */
enum { PATIENCE = 40 };

static tss_status sign_as(size_t who, tss_status asked, const uint8_t *digest, uint8_t *signature64) {
    const bool was_armed = armed;
    armed = false;
    if (asked == TSS_OK) {
        sign(signature64, who, digest);
    }
    armed = was_armed;
    return asked;
}

static tss_party *quiet_begin(uint32_t seat, uint16_t n) {
    armed = false;
    tss_party *party = plain_begin(seat, n);
    armed = true;
    return party;
}

static void next_step(tss_channel *c, tss_party **party, size_t who, uint64_t now_ms) {
    uint8_t digest[32], signature[64], transcript32[32];
    const uint8_t result[32] = {9};
    switch (tss_channel_state_of(c)) {
    case TSS_CHANNEL_AGREED:
        CHECK(tss_channel_transcript(c, transcript32) == TSS_OK);
        if (*party == NULL) {
            *party = quiet_begin((uint32_t)who + 1, c->ceremony.members_len);
        }
        (void)channel_went_well(tss_channel_attach(c, *party, now_ms));
        break;
    case TSS_CHANNEL_RESULT:
        if (channel_went_well(sign_as(who, tss_channel_confirmation_digest(
                                       c, digest, c->ceremony.kind == TSS_KEYGEN ? result : NULL, now_ms),
                              digest, signature))) {
            (void)channel_went_well(tss_channel_confirm(c, signature, now_ms));
        }
        break;
    default:
        break;
    }
}

static void exchange_frames(tss_channel *const *c, size_t n, uint64_t now_ms) {
    tss_frame frame;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t from = 0; from < n; from++) {
            while (tss_channel_outgoing(c[from], &frame) == TSS_OK) {
                moved = true;
                for (size_t to = 0; to < n; to++) {
                    if (to != from && (frame.to == TSS_BROADCAST || frame.to == to + 1)) {
                        const tss_status status = tss_channel_receive(c[to], frame.data, frame.data_len, now_ms);
                        CHECK(status == TSS_OK || status == TSS_NOTHING);
                    }
                }
            }
        }
    }
}

static bool failed_by_itself(const tss_channel *c) {
    tss_channel_fault fault;
    tss_channel_fault_of(c, &fault);
    if (fault.culprits_len != 0) {
        (void)fprintf(stderr, "blamed: %s: %s\n", tss_channel_reason_name(fault.reason), fault.detail);
    }
    CHECK(fault.culprits_len == 0);
    return fault.reason == TSS_CHANNEL_INTERNAL || fault.reason == TSS_CHANNEL_PARTY;
}

static void talk(const tss_ceremony *terms_of_it, bool abort_it) {
    tss_channel *c[SEATS_MAX] = {NULL};
    tss_party *party[SEATS_MAX] = {NULL};
    const size_t n = terms_of_it->members_len;
    uint64_t now_ms = 0;
    armed = true;
    bool open = true;
    for (size_t i = 0; open && i < n; i++) {
        tss_ceremony own = *terms_of_it;
        uint8_t digest[32], signature[64];
        own.seat = (uint32_t)i + 1;
        open = channel_went_well(tss_channel_new(&c[i], &own));
        if (open) {
            tss_channel_hello_digest(c[i], digest);
            (void)sign_as(i, TSS_OK, digest, signature);
            open = channel_went_well(tss_channel_start(c[i], signature)) || channel_went_well(tss_channel_start(c[i], signature));
        }
    }
    for (size_t turn = 0; open && turn < PATIENCE; turn++, now_ms += 500) {
        for (size_t i = 0; i < n; i++) {
            next_step(c[i], &party[i], i, now_ms);
            tss_channel_tick(c[i], now_ms);
        }
        if (abort_it && tss_channel_state_of(c[0]) == TSS_CHANNEL_RUNNING) {
            uint8_t digest[32], signature[64];
            if (channel_went_well(sign_as(0, tss_channel_abort(c[0], digest, "refused"), digest, signature))) {
                (void)channel_went_well(tss_channel_abort_signed(c[0], signature));
            }
        }
        exchange_frames(c, n, now_ms);
        tss_channel_connected(c[0], now_ms);
    }
    bool by_itself = false;
    for (size_t i = 0; open && i < n; i++) {
        by_itself = failed_by_itself(c[i]) || by_itself;
    }
    for (size_t i = 0; open && i < n; i++) {
        const tss_channel_state state = tss_channel_state_of(c[i]);
        if (!refused) {
            CHECK(state == (abort_it ? TSS_CHANNEL_FAILED : TSS_CHANNEL_COMPLETE));
        }
        if (state == TSS_CHANNEL_FAILED && !abort_it) {
            well = false;
            CHECK(by_itself);
        }
    }
    for (size_t i = 0; i < n; i++) {
        tss_channel_free(c[i]);
        tss_party_free(party[i]);
    }
    part_ends(false);
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    const char *const saves[2] = {argv[1], argv[2]};
    const char *const sets[2] = {argv[3], argv[4]};
    (void)LLVMFuzzerInitialize(&argc, &argv);
    search_for_primes();
    talk(&terms[0], false);
    talk(&terms[1], false);
    talk(&terms[1], true);
    talk(&terms[2], false);
    talk(&terms[3], false);
    sign_with_it(saves);
    make_key(sets);
    (void)printf("%zu places\n", places);
    keep_nothing();
    CHECK(tss_close() == TSS_OK);
    return 0;
}
