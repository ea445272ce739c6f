/* Times the proofs of GG18 and the exponentiations they are made of. Built and run by core.py.
 *
 * core PROTOCOL SAVES THRESHOLD RUNS: SAVES is a file with two of tss-lib's LocalPartySaveData of one key, one a line. Prints one
 * JSON object per figure: {"what", "protocol", "us": [median, min, max]}, microseconds of CPU time. */

#include "../tss_cffi/src/tss.c"

#include <stdio.h>
#include <time.h>

enum { RUNS_MAX = 1001 };

typedef struct bench {
    unsigned runs;
    tss_protocol protocol;
    gg18_share ours, theirs;
    gg18_session session;
    gg18_tag tag;
    paillier_private key, their_key;
    paillier_public their_public, our_public;
    ring_private ring, their_ring;
    ring_public foreign, fac_foreign;
    modulus our_n_tilde;
    draft *draft;
    double us[RUNS_MAX];
} bench;

static bench *b;

static double cpu_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int ascending(const void *left, const void *right) {
    const double l = *(const double *)left, r = *(const double *)right;
    return (l > r) - (l < r);
}

static void report(const char *what, unsigned runs) {
    qsort(b->us, runs, sizeof(b->us[0]), ascending);
    printf("{\"what\": \"%s\", \"protocol\": \"%s\", \"us\": [%.2f, %.2f, %.2f]}\n", what,
        b->protocol == TSS_GG18_V3 ? "gg18-v3" : "gg18-v2", b->us[runs / 2], b->us[0], b->us[runs - 1]);
    fflush(stdout);
}

static void must(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "core: %s failed\n", what);
        exit(1);
    }
}

#define TIMED(what, expression)                          \
    do {                                                 \
        for (unsigned run = 0; run < b->runs; run++) {   \
            b->draft->ok = true;                         \
            b->draft->used = 0;                          \
            const double start = cpu_us();               \
            must((expression), what);                    \
            b->us[run] = cpu_us() - start;               \
        }                                                \
        report(what, b->runs);                           \
    } while (0)

#define DO(statement) ((statement), true)

/* The unit costs: one exponentiation of each kind, with exponents as long as the modulus (2048 bits for 4096). */
static void units(void) {
    BIG(base, N_BITS);
    BIG(exponent, N_BITS);
    BIG(r, N_BITS);
    BIG(base2, NN_BITS);
    BIG(r2, NN_BITS);
    random_below(exponent, modulus_value(&b->their_public.n));
    random_below(base, modulus_value(&b->their_public.n));
    random_below(base2, modulus_value(&b->their_public.nn));
    TIMED("unit exp 2048", DO(mod_exp(r, base, exponent, &b->their_public.n)));
    TIMED("unit exp_var 2048", DO(mod_exp_var(r, base, exponent, &b->their_public.n)));
    TIMED("unit exp 4096", DO(mod_exp(r2, base2, exponent, &b->their_public.nn)));
    TIMED("unit exp_var 4096", DO(mod_exp_var(r2, base2, exponent, &b->their_public.nn)));
    TIMED("unit own 2048", DO(crt_exp(r, base, exponent, &b->ring.n)));
    const big bases2[] = {base2}, exponents[] = {exponent};
    TIMED("unit own 4096", DO(crt_exp_product_square(r2, bases2, exponents, 1, &b->key.n)));
    TIMED("unit own nth power", DO(crt_nth_power(r2, base, &b->key.n)));
}

static void proofs(void) {
    const gg18_public *mine = &b->ours.public_[b->ours.own], *yours = &b->theirs.public_[b->theirs.own];
    const span *parts = b->draft->parts;
    const gg18_tag tag = b->tag;
    scalar k, x;
    point X;
    scalar_random(&k);
    scalar_random(&x);
    point_mul_base(&X, &x);
    BIG(r, N_BITS);
    BIG(c, NN_BITS);
    random_below(r, BIG_OF(mine->n));

    TIMED("dln prove", dln_prove(b->draft, 0, &b->session, mine, &b->ring, false));
    TIMED("dln verify", dln_verify(parts, &b->session, mine, &b->our_n_tilde, false));
    TIMED("mod prove", mod_prove(b->draft, 0, tag, &b->key));
    TIMED("mod verify", mod_verify(parts, tag, &b->our_public.n));
    TIMED("fac prove", fac_prove(b->draft, 0, tag, &b->ours.secret, mine, &b->fac_foreign, yours));
    TIMED("fac verify", fac_verify(parts, tag, mine, &b->their_ring, yours));
    TIMED("paillier prove", paillier_prove(b->draft, 0, 1, &b->ours.Y, &b->key));
    TIMED("paillier verify", paillier_verify(parts, 1, &b->ours.Y, &b->our_public.n));
    TIMED("encrypt", DO(paillier_encrypt_own(c, scalar_big(&k), r, &b->key)));
    TIMED("range prove",
        range_prove(b->draft, 0, &b->session, tag, &k, r, c, &b->key, &b->foreign, yours));
    TIMED("range verify", range_verify(parts, &b->session, tag, c, &b->our_public, &b->their_ring, yours));

    /* Alice is the other party: c1 is its encryption of k. */
    BIG(c1, NN_BITS);
    BIG(c2, NN_BITS);
    BIG(y, 5 * Q_BITS);
    BIG(bound, 5 * Q_BITS);
    BIG(m2, N_BITS);
    random_below(r, BIG_OF(yours->n));
    paillier_encrypt_own(c1, scalar_big(&k), r, &b->their_key);
    big_zero(bound);
    bound.d[bound.n - 1] = UINT64_C(1) << 62;
    random_below(y, bound);
    random_below(r, BIG_OF(yours->n));
    TIMED("answer", DO(paillier_affine(c2, c1, scalar_big(&x), y, r, &b->their_public)));
    TIMED("bob prove", bob_prove(b->draft, 0, &b->session, tag, c1, c2, &x, NULL, y, r, &b->their_public, &b->foreign, yours));
    TIMED("bob verify", bob_verify(m2, parts, &b->session, tag, c1, &k, c2, NULL, &b->their_key, &b->their_ring, yours));
    TIMED("bob wc prove", bob_prove(b->draft, 0, &b->session, tag, c1, c2, &x, &X, y, r, &b->their_public, &b->foreign, yours));
    TIMED("bob wc verify", bob_verify(m2, parts, &b->session, tag, c1, &k, c2, &X, &b->their_key, &b->their_ring, yours));
    TIMED("decrypt", DO(paillier_decrypt(m2, c2, &b->their_key)));

    ring_public table;
    for (unsigned run = 0; run < b->runs; run++) {
        const double start = cpu_us();
        must(ring_public_init(&table, yours, MTA_H1_BITS, MTA_H2_BITS, 10), "tables");
        b->us[run] = cpu_us() - start;
        ring_public_free(&table);
    }
    report("ring tables for a signing", b->runs);
}

static void load(gg18_share *share, FILE *saves, size_t threshold) {
    char *line = NULL;
    size_t room = 0;
    const ssize_t len = getline(&line, &room, saves);
    must(len > 0, "reading the shares");
    const char *problem = foreign_read(
        share, b->protocol == TSS_GG18_V3, threshold, (span){(const uint8_t *)line, (size_t)len});
    must(problem == NULL, problem == NULL ? "" : problem);
    free(line);
}

static void run(void *arguments) {
    char **argv = arguments;
    FILE *saves = fopen(argv[2], "r");
    must(saves != NULL, "opening the shares");
    const size_t threshold = strtoul(argv[3], NULL, 10);
    load(&b->ours, saves, threshold);
    load(&b->theirs, saves, threshold);
    fclose(saves);

    const gg18_public *mine = &b->ours.public_[b->ours.own], *yours = &b->theirs.public_[b->theirs.own];
    const uint32_t keys[] = {b->ours.seats[b->ours.own], b->theirs.seats[b->theirs.own]};
    const point X[] = {b->ours.X[b->ours.own], b->ours.X[b->theirs.own]};
    const gg18_public *const public_[] = {mine, yours};
    must(session_open(&b->session, b->protocol == TSS_GG18_V3, keys, 2, X, public_, NULL), "session");
    b->tag = session_context(&b->session, 0);
    const bool ok = paillier_private_init(&b->key, BIG_OF(b->ours.secret.p), BIG_OF(b->ours.secret.q)) == 1
        && paillier_private_init(&b->their_key, BIG_OF(b->theirs.secret.p), BIG_OF(b->theirs.secret.q)) == 1
        && ring_private_init(&b->ring, &b->ours.secret, BIG_OF(mine->h1)) == 1
        && ring_private_init(&b->their_ring, &b->theirs.secret, BIG_OF(yours->h1)) == 1
        && ring_public_init(&b->foreign, yours, MTA_H1_BITS, MTA_H2_BITS, 10)
        && ring_public_init(&b->fac_foreign, yours, FAC_H1_BITS, FAC_H2_BITS, 5);
    must(ok, "keys");
    paillier_public_init(&b->our_public, BIG_OF(mine->n));
    paillier_public_init(&b->their_public, BIG_OF(yours->n));
    modulus_init(&b->our_n_tilde, BIG_OF(mine->n_tilde));
    b->draft = draft_new(DLN_PARTS + MOD_PARTS, (size_t)256 * 1024);
    must(b->draft != NULL, "memory");
    units();
    proofs();
}

int main(int argc, char **argv) {
    must(argc == 5, "core gg18-v2|gg18-v3 SAVES THRESHOLD RUNS");
    must(tss_open((size_t)16 * 1024 * 1024) == TSS_OK, "the arena");
    b = secret_alloc(sizeof(bench));
    must(b != NULL, "memory");
    b->protocol = strcmp(argv[1], "gg18-v3") == 0 ? TSS_GG18_V3 : TSS_GG18_V2;
    b->runs = (unsigned)strtoul(argv[4], NULL, 10);
    must(b->runs >= 1 && b->runs <= RUNS_MAX && secret_call(run, argv), "the run");
    return 0;
}
