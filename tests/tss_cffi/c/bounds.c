/* How much memory a message makes a party take: each case opens a party, delivers messages to it, and measures the last one.
 *
 * Arguments: save data of seat 1 and pre-parameters, both tss-lib's JSON, and a file of cases: u8 ceremony (0 signing, 1 keygen),
 * u8 messages, and of each message u8 class, u32 length, bytes. Prints for each case the status, and how far the heap and the arena grew at
 * most while the last message was taken. */

#include "tss.c"

#include <malloc.h>
#include <stdio.h>

/* ---- A heap that counts: everything in the process goes through it, libraries included ---- */

extern void *__libc_malloc(size_t len);
extern void *__libc_calloc(size_t count, size_t len);
extern void *__libc_realloc(void *data, size_t len);
extern void *__libc_memalign(size_t alignment, size_t len);
extern void __libc_free(void *data);

static size_t heap_used = 0;
static size_t heap_peak = 0;

static void *heap_count(void *data) {
    heap_used += malloc_usable_size(data);
    heap_peak = heap_used > heap_peak ? heap_used : heap_peak;
    return data;
}

void *malloc(size_t len) { return heap_count(__libc_malloc(len)); }

void *calloc(size_t count, size_t len) { return heap_count(__libc_calloc(count, len)); }

void *aligned_alloc(size_t alignment, size_t len) { return heap_count(__libc_memalign(alignment, len)); }

void *realloc(void *data, size_t len) {
    heap_used -= malloc_usable_size(data);
    return heap_count(__libc_realloc(data, len));
}

void free(void *data) {
    heap_used -= malloc_usable_size(data);
    __libc_free(data);
}

/* ---- Cases ---- */

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

static span file_span(const char *path) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    const long len = ftell(file);
    CHECK(len > 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *bytes = malloc((size_t)len);
    CHECK(bytes != NULL && fread(bytes, 1, (size_t)len, file) == (size_t)len && fclose(file) == 0);
    return (span){bytes, (size_t)len};
}

static tss_secret *secret_of(span bytes) {
    tss_secret *secret;
    CHECK(tss_secret_new(&secret, bytes.len) == TSS_OK);
    memcpy(tss_secret_data(secret), bytes.at, bytes.len);
    return secret;
}

static const uint32_t seats[2] = {1, 2};

static tss_party *open_signing(span save) {
    static const uint8_t digest32[32] = {7};
    tss_party *party;
    tss_share *share;
    tss_secret *bytes;
    tss_secret *json = secret_of(save);
    CHECK(tss_share_import(&bytes, TSS_GG18_V2, 2, json) == TSS_OK);
    CHECK(tss_share_load(&share, bytes) == TSS_OK);
    CHECK(tss_signing_begin(&party, share, seats, 2, digest32, NULL) == TSS_OK);
    tss_secret_free(json);
    tss_secret_free(bytes);
    tss_share_free(share);
    return party;
}

static tss_party *open_keygen(span parameters) {
    tss_party *party;
    tss_secret *prepared;
    tss_secret *json = secret_of(parameters);
    CHECK(tss_seeded_prepared(&prepared, TSS_GG18_V2, json) == TSS_OK);
    CHECK(tss_keygen_begin(&party, TSS_GG18_V2, 1, seats, 2, 2, prepared, NULL) == TSS_OK);
    tss_secret_free(json);
    tss_secret_free(prepared);
    return party;
}

static void measure_last(reader *cases, tss_party *party, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const tss_class class_ = (tss_class)reader_u8(cases);
        const span message = reader_take(cases, reader_u32(cases));
        CHECK(cases->ok);
        const size_t heap = heap_used;
        const size_t arena = secret_arena.used;
        heap_peak = heap;
        secret_arena.peak = arena;
        const tss_status status = tss_party_receive(party, 2, class_, message.at, message.len);
        if (i + 1 == count) {
            (void)printf("%d %zu %zu\n", (int)status, heap_peak - heap, secret_arena.peak - arena);
        }
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const span save = file_span(argv[1]);
    const span parameters = file_span(argv[2]);
    reader cases = reader_open(file_span(argv[3]));
    CHECK(tss_open(16 * 1024 * 1024) == TSS_OK);
    while (!reader_done(&cases)) {
        const bool keygen = reader_u8(&cases) == 1;
        const size_t count = reader_u8(&cases);
        tss_party *party = keygen ? open_keygen(parameters) : open_signing(save);
        measure_last(&cases, party, count);
        tss_party_free(party);
    }
    CHECK(tss_close() == TSS_OK);
    return 0;
}
