/* Constant time of whole ceremonies, checked by valgrind: the secrets of a share or of a set of pre-parameters, and all that is drawn
 * at random, are marked as undefined; a branch or an address that depends on one is reported. Built with TSS_CTIME and TSS_SEEDED.
 *
 * Arguments: "sign" and tss-lib's save data of seats 1 and 2 of a 2-of-2, or "keygen" and two of its pre-parameter sets. */

#include "tss.c"

#include <stdio.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

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

/* Of kept bytes: the secret part, x where there is one, then four primes and alpha. */
static void classify_kept(tss_secret *bytes, size_t at, size_t len) { CLASSIFY(tss_secret_data(bytes) + at, len); }

/* Is every byte still secret? That this is so in the end shows that the marks were there all the time. */
static bool marked(const uint8_t *data, size_t len) {
    bool all = true;
    for (size_t i = 0; i < len; i++) {
        uint8_t bits = 0;
        CHECK(VALGRIND_GET_VBITS(data + i, &bits, 1) == 1);
        all = all && bits != 0;
    }
    return all;
}

/* Messages are public: what stands in them has been declassified where it was put in. */
static bool carry(tss_party *from, tss_party *to, uint32_t seat) {
    tss_message message;
    bool moved = false;
    while (tss_party_outgoing(from, &message) == TSS_OK) {
        CHECK(VALGRIND_CHECK_MEM_IS_DEFINED(message.data, message.data_len) == 0);
        CHECK(tss_party_receive(to, seat, message.class_, message.data, message.data_len) == TSS_OK);
        moved = true;
    }
    return moved;
}

static void hold_both(tss_party *const *party) {
    while (carry(party[0], party[1], 1) | carry(party[1], party[0], 2)) {
    }
    for (size_t i = 0; i < 2; i++) {
        CHECK(tss_party_state(party[i]) == TSS_DONE);
    }
}

static const uint32_t seats[2] = {1, 2};

static void sign_under_marks(tss_protocol protocol, char **paths) {
    tss_party *party[2];
    for (size_t i = 0; i < 2; i++) {
        tss_secret *json = file_bytes(paths[i]);
        tss_secret *bytes;
        tss_share *share;
        static const uint8_t digest32[32] = {7};
        CHECK(tss_share_import(&bytes, protocol, 2, json) == TSS_OK);
        classify_kept(bytes, KEPT_HEADER_LEN + 6, 32 + 4 * P_BYTES + N_BYTES);
        CHECK(tss_share_load(&share, bytes) == TSS_OK);
        tss_share_free(share);
        CHECK(tss_share_load_proven(&share, bytes) == TSS_OK);
        CHECK(tss_signing_begin(&party[i], share, seats, 2, digest32, NULL) == TSS_OK);
        tss_secret_free(json);
        tss_secret_free(bytes);
        tss_share_free(share);
    }
    hold_both(party);
    for (size_t i = 0; i < 2; i++) {
        uint8_t signature64[64];
        uint8_t recovery_id;
        CHECK(tss_signing_result(party[i], signature64, &recovery_id) == TSS_OK);
        CHECK(VALGRIND_CHECK_MEM_IS_DEFINED(signature64, 64) == 0);
        tss_party_free(party[i]);
    }
}

static void keygen_under_marks(tss_protocol protocol, char **paths) {
    tss_party *party[2];
    for (size_t i = 0; i < 2; i++) {
        tss_secret *json = file_bytes(paths[i]);
        tss_secret *prepared;
        CHECK(tss_seeded_prepared(&prepared, protocol, json) == TSS_OK);
        classify_kept(prepared, KEPT_HEADER_LEN + 1, 4 * P_BYTES + N_BYTES);
        CHECK(tss_keygen_begin(&party[i], protocol, seats[i], seats, 2, 2, prepared, NULL) == TSS_OK);
        tss_secret_free(json);
        tss_secret_free(prepared);
    }
    hold_both(party);
    for (size_t i = 0; i < 2; i++) {
        tss_secret *share;
        CHECK(tss_keygen_result(party[i], &share) == TSS_OK);
        CHECK(marked(tss_secret_data(share) + KEPT_HEADER_LEN + 6, 32 + 4 * P_BYTES + N_BYTES));
        tss_secret_free(share);
        tss_party_free(party[i]);
    }
}

int main(int argc, char **argv) {
    CHECK(RUNNING_ON_VALGRIND);
    CHECK(argc == 4);
    CHECK(tss_open(16 * 1024 * 1024) == TSS_OK);
    if (strcmp(argv[1], "sign") == 0) {
        sign_under_marks(TSS_GG18_V2, argv + 2);
        sign_under_marks(TSS_GG18_V3, argv + 2);
    } else {
        keygen_under_marks(TSS_GG18_V3, argv + 2);
    }
    CHECK(tss_close() == TSS_OK);
    return 0;
}
