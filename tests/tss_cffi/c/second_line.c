/* Verifiers asked directly, about what another check refuses before they are asked in a ceremony.
 *
 * Arguments: tss-lib's pre-parameters as JSON, whose ring is the verifier's, and a file of cases: u8 proof (0 Paillier key, 1 mod, 2 fac;
 * 3: no proof, but the plaintext of an answer in signing, and what it is modulo q), u16 length of N, N, u16 parts, and of each part u16
 * length, bytes. The prover has seat 2; the key is the generator; the context "session". Prints for each case 1 where it is accepted, else 0. */

#include "tss.c"

#include <stdio.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

enum { BYTES_MAX = 1024 * 1024 };

static span file_span(const char *path, uint8_t *room) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    const size_t len = fread(room, 1, BYTES_MAX, file);
    CHECK(len != 0 && fclose(file) == 0);
    return (span){room, len};
}

typedef struct second_line {
    reader cases;
    gg18_prepared own;
    ring_private ring;
} second_line;

static bool plaintext_is(const span *parts, const modulus *n) {
    BIG(plain, N_BITS);
    BIG(expected, N_BITS);
    scalar found, wanted;
    CHECK(big_from_bytes(plain, parts[0].at, parts[0].len) && big_from_bytes(expected, parts[1].at, parts[1].len));
    scalar_set_big(&wanted, expected);
    return signing_plaintext(&found, plain, modulus_value(n)) && scalar_equal(&found, &wanted);
}

static bool verify_one(const second_line *line, uint8_t proof, const gg18_public *theirs, const span *parts) {
    const gg18_tag tag = {.bytes = "session", .len = 7};
    modulus n;
    modulus_init(&n, BIG_OF(theirs->n));
    switch (proof) {
    case 0:
        return paillier_verify(parts, 2, curve_generator(), &n);
    case 1:
        return mod_verify(parts, tag, &n);
    case 2:
        return fac_verify(parts, tag, theirs, &line->ring, &line->own.public_);
    default:
        return plaintext_is(parts, &n);
    }
}

static void verify_all(void *argument) {
    second_line *line = argument;
    reader *r = &line->cases;
    while (!reader_done(r)) {
        span parts[MOD_PARTS];
        gg18_public theirs = {{0}, {0}, {0}, {0}};
        const uint8_t proof = reader_u8(r);
        const span n = reader_take(r, reader_u16(r));
        const size_t count = reader_u16(r);
        CHECK(r->ok && count <= MOD_PARTS && big_from_bytes(BIG_OF(theirs.n), n.at, n.len));
        for (size_t i = 0; i < count; i++) {
            parts[i] = reader_take(r, reader_u16(r));
        }
        CHECK(r->ok);
        (void)printf("%d\n", verify_one(line, proof, &theirs, parts));
    }
}

int main(int argc, char **argv) {
    static uint8_t json[BYTES_MAX];
    static uint8_t cases[BYTES_MAX];
    static second_line line;
    CHECK(argc == 3 && tss_open(16 * 1024 * 1024) == TSS_OK);
    CHECK(foreign_read_prepared(&line.own, file_span(argv[1], json)) == NULL);
    CHECK(ring_private_init(&line.ring, &line.own.own, BIG_OF(line.own.public_.h1)));
    line.cases = reader_open(file_span(argv[2], cases));
    CHECK(secret_call(verify_all, &line));
    CHECK(tss_close() == TSS_OK);
    return 0;
}
