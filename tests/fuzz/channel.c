/* A libFuzzer target for the channel: its decoder and its states. Seat 1 is ours; an input is a program for what seat 2 (and seat 3, in
 * half of the ceremonies) and the network do to it, so that the fuzzer gets behind tags and signatures: those seats can seal and sign
 * whatever an edit makes of their honest frames.
 *
 * The party behind each channel is a ceremony of three rounds that computes nothing: what is tested is the channel, a whole one for each
 * input. Besides what the sanitizers find it is a defect when a final state is left, when a channel fails after its own confirmation,
 * when our own seat is blamed, when a conviction does not come with two statements that verify, or when anything is left in the arena. */

#ifndef TSS_SEEDED
#error "the target replays: build it with -DTSS_SEEDED"
#endif

#include "../../tss_cffi/src/tss.c"

#include <openssl/ec.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 8192, FRAMES_MAX = 128, SEATS_MAX = 3 };

static void must(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

/* ---- A ceremony without mathematics: a broadcast and a direct message, direct messages, a broadcast ---- */

static const char *plain_recognise(size_t *type, const tss_party *party, span message) {
    (void)party;
    if (message.len != 40 || message.at[0] > 3) {
        return "not one of these messages";
    }
    *type = message.at[0];
    return NULL;
}

static bool plain_send(tss_party *party, size_t type, size_t to) {
    uint8_t *out = party_send(party, type, to, 40);
    if (out == NULL) {
        return false;
    }
    memset(out, (int)(16 * party->own + type), 40);
    out[0] = (uint8_t)type;
    return true;
}

static bool plain_send_each(tss_party *party, size_t type) {
    bool sent = true;
    for (size_t to = 0; to < party->n; to++) {
        sent = (to == party->own || plain_send(party, type, to)) && sent;
    }
    return sent;
}

static bool plain_compute(tss_party *party, uint16_t round) {
    switch (round) {
    case 1: return plain_send(party, 0, SIZE_MAX) && plain_send_each(party, 1);
    case 2: return plain_send_each(party, 2);
    case 3: return plain_send(party, 3, SIZE_MAX);
    default: break;
    }
    for (size_t peer = 0; peer < party->n; peer++) {
        if (peer != party->own && party_read(party, 3, peer).at[1] == 0xee) {
            return party_fail(party, TSS_REASON_INCONSISTENT, 0, "nobody can be named");
        }
    }
    /* The key is 1, the message 0: with the nonce 1, r and s are both the generator's x. */
    uint8_t xy[64];
    point_xy(xy, curve_generator());
    memcpy(party->signature64, xy, 32);
    memcpy(party->signature64 + 32, xy, 32);
    party->has_signature = true;
    return true;
}

static void plain_end(tss_party *party) { secret_free(party->state); }

static const ceremony plain_ceremony = {
    .rounds = 3,
    .types_len = 4,
    .types = {{1, TSS_CLASS_BROADCAST}, {1, TSS_CLASS_DIRECT}, {2, TSS_CLASS_DIRECT}, {3, TSS_CLASS_BROADCAST}},
    .recognise = plain_recognise,
    .compute = plain_compute,
    .end = plain_end,
};

static void plain_begin_run(void *party) { must(party_begin(party) == TSS_OK, "begin"); }

static tss_party *plain_begin(uint32_t seat, uint16_t n) {
    static const uint32_t seats[SEATS_MAX] = {1, 2, 3};
    tss_party *party = party_new(&plain_ceremony, seat, seats, n);
    must(party != NULL, "no party");
    party->state = secret_alloc(1);
    must(party->state != NULL && secret_call(plain_begin_run, party), "no memory");
    return party;
}

/* ---- Identities ---- */

static EVP_PKEY *identity[SEATS_MAX];
static tss_ceremony terms[4]; /* keygen, signing, each of two and of three; as seat 1 sees them */

static void sign(uint8_t *signature64, size_t who, const uint8_t *digest32) {
    uint8_t der[80];
    size_t der_len = sizeof der;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(identity[who], NULL);
    must(EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_sign(context, der, &der_len, digest32, 32) == 1, "sign");
    EVP_PKEY_CTX_free(context);
    const uint8_t *at = der;
    ECDSA_SIG *made = d2i_ECDSA_SIG(NULL, &at, (long)der_len);
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BIGNUM *s = BN_dup(ECDSA_SIG_get0_s(made));
    BIGNUM *half = BN_dup(EC_GROUP_get0_order(group));
    BN_rshift1(half, half);
    if (BN_cmp(s, half) > 0) {
        BN_sub(s, EC_GROUP_get0_order(group), s);
    }
    must(BN_bn2binpad(ECDSA_SIG_get0_r(made), signature64, 32) == 32 && BN_bn2binpad(s, signature64 + 32, 32) == 32, "r||s");
    BN_free(s);
    BN_free(half);
    EC_GROUP_free(group);
    ECDSA_SIG_free(made);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    must(tss_open((size_t)16 * 1024 * 1024) == TSS_OK, "no arena");
    tss_ceremony t = {.kind = TSS_KEYGEN, .protocol = TSS_GG18_V2, .session16 = {7}, .seat = 1, .threshold = 2, .members_len = 2};
    for (uint32_t i = 0; i < SEATS_MAX; i++) {
        size_t len = 0;
        identity[i] = EVP_EC_gen("P-256");
        must(identity[i] != NULL, "no key");
        EVP_PKEY_set_utf8_string_param(identity[i], OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "compressed");
        t.members[i].seat = i + 1;
        (void)snprintf(t.members[i].party_id, sizeof t.members[i].party_id, "user%u-server", i + 1);
        must(EVP_PKEY_get_octet_string_param(identity[i], OSSL_PKEY_PARAM_PUB_KEY, t.members[i].identity33, 33, &len) == 1
                 && len == 33,
             "no compressed key");
    }
    terms[0] = t;
    t.kind = TSS_SIGNING;
    t.has_public = 1;
    t.has_digest = 1;
    point_compress(t.public33, curve_generator());
    terms[1] = t;
    for (size_t i = 0; i < 2; i++) {
        terms[2 + i] = terms[i];
        terms[2 + i].members_len = 3;
    }
    return 0;
}

/* ---- The table ---- */

typedef struct table {
    size_t n;
    tss_channel *ends[SEATS_MAX], *ours; /* ours: ends[0] */
    tss_party *parties[SEATS_MAX];
    uint64_t now_ms;
    tss_channel_state state; /* of ours, when last looked at */
    struct {
        uint8_t *data;
        size_t len, who;
    } frames[FRAMES_MAX]; /* what the others sent us, in order */
    size_t frames_len, next;
} table;

static tss_channel *open_end(const tss_ceremony *t, size_t who) {
    tss_ceremony own = *t;
    tss_channel *c = NULL;
    uint8_t digest[32], signature[64];
    own.seat = (uint32_t)who + 1;
    must(tss_channel_new(&c, &own) == TSS_OK, "no channel");
    tss_channel_hello_digest(c, digest);
    sign(signature, who, digest);
    must(tss_channel_start(c, signature) == TSS_OK, "no start");
    return c;
}

/* What a custodian does when the state asks for it. */
static void advance(table *t, size_t who) {
    tss_channel *c = t->ends[who];
    uint8_t digest[32], signature[64];
    const uint8_t result[32] = {9};
    if (tss_channel_state_of(c) == TSS_CHANNEL_AGREED && t->parties[who] == NULL) {
        t->parties[who] = plain_begin((uint32_t)who + 1, (uint16_t)t->n);
        must(tss_channel_attach(c, t->parties[who], t->now_ms) == TSS_OK, "no attach");
    }
    if (tss_channel_state_of(c) == TSS_CHANNEL_RESULT) {
        const bool keygen = c->ceremony.kind == TSS_KEYGEN;
        if (tss_channel_confirmation_digest(c, digest, keygen ? result : NULL, t->now_ms) == TSS_OK) {
            sign(signature, who, digest);
            must(tss_channel_confirm(c, signature, t->now_ms) == TSS_OK, "no confirmation");
        }
    }
}

static void keep(table *t, size_t who, const tss_frame *frame) {
    if (t->frames_len < FRAMES_MAX && frame->data_len <= ROOM) {
        t->frames[t->frames_len].data = malloc(frame->data_len);
        must(t->frames[t->frames_len].data != NULL, "no memory");
        memcpy(t->frames[t->frames_len].data, frame->data, frame->data_len);
        t->frames[t->frames_len].who = who;
        t->frames[t->frames_len++].len = frame->data_len;
    }
}

/* The others get at once all that anybody sends; what they send us is for the program to deliver. */
static void exchange(table *t) {
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t from = 0; from < t->n; from++) {
            tss_frame frame;
            while (tss_channel_outgoing(t->ends[from], &frame) == TSS_OK) {
                must(frame.data_len <= TSS_CHANNEL_FRAME_MAX, "a frame too long");
                moved = true;
                for (size_t to = 0; to < t->n; to++) {
                    if (to == from || (frame.to != TSS_BROADCAST && frame.to != to + 1)) {
                        continue;
                    }
                    if (to == 0) {
                        keep(t, from, &frame);
                    } else {
                        (void)!tss_channel_receive(t->ends[to], frame.data, frame.data_len, t->now_ms);
                        advance(t, to);
                    }
                }
            }
        }
    }
}

static void convicts(const table *t, const tss_channel_fault *fault) {
    must(fault->evidence[0] != NULL && fault->evidence[1] != NULL, "a conviction without evidence");
    const size_t who = fault->culprits[0] - 1;
    for (size_t i = 0; i < 2; i++) {
        const span statement = {fault->evidence[i], fault->evidence_len[i]};
        const char *const tags[] = {CHANNEL_TAG_HELLO, CHANNEL_TAG_CONFIRM, CHANNEL_TAG_BROADCAST};
        span body;
        const uint8_t *signature;
        bool genuine = false;
        must(statement_split(&body, &signature, statement), "evidence too short");
        for (size_t k = 0; k < 2; k++) {
            genuine = genuine || identity_statement(statement, tags[k], t->ours->ceremony.members[who].identity33).len != 0;
        }
        genuine = genuine
            || (t->n > 2 && crypto_ed25519_verify(t->ours->members[who].ed25519_32, tags[2], body, signature));
        must(genuine, "evidence that does not verify");
    }
}

static void check(table *t) {
    const tss_channel_state state = tss_channel_state_of(t->ours);
    const tss_channel_state before = t->state;
    tss_channel_fault fault;
    tss_progress progress;
    tss_channel_fault_of(t->ours, &fault);
    tss_channel_progress(t->ours, &progress);
    must(before != TSS_CHANNEL_COMPLETE || state == before, "COMPLETE was left");
    must(before != TSS_CHANNEL_FAILED || state == before, "FAILED was left");
    must(before != TSS_CHANNEL_CONFIRMING || state == before || state == TSS_CHANNEL_COMPLETE, "failed after confirming");
    must(state >= before, "went back");
    must(state != TSS_CHANNEL_FAILED || fault.reason != TSS_CHANNEL_NONE, "failed without a reason");
    must(fault.reason != TSS_CHANNEL_INTERNAL, "our own failure");
    must(fault.culprits_len == 0 || (fault.culprits_len == 1 && fault.culprits[0] >= 2 && fault.culprits[0] <= t->n),
         "the wrong seat is blamed");
    must(memchr(fault.detail, 0, sizeof fault.detail) != NULL, "a detail without an end");
    for (const char *c = fault.detail; *c != '\0'; c++) {
        must(*c >= ' ' && *c <= '~', "a detail that is not printable");
    }
    must(t->ours->keys == NULL || state < TSS_CHANNEL_RESULT, "keys outlive their use");
    if (fault.reason == TSS_CHANNEL_EQUIVOCATION) {
        convicts(t, &fault);
    }
    t->state = state;
}

/* ---- The program ---- */

static size_t edit(uint8_t *out, size_t len, reader *program) {
    for (unsigned edits = reader_u8(program) & 7; edits > 0 && len > 0; edits--) {
        const size_t at = reader_u16(program) % len;
        const uint8_t how = reader_u8(program);
        const uint8_t value = reader_u8(program);
        switch (how & 3) {
        case 0: out[at] = value; break;
        case 1: out[at] ^= (uint8_t)(1u << (value & 7)); break;
        case 2: len = at; break;
        default:
            if (len + value <= ROOM) {
                memset(out + len, how, value);
                len += value;
            }
            break;
        }
    }
    return len;
}

/* A seat's key for the kind of statement that it is. */
static void sign_again(const table *t, size_t who, uint8_t *frame, size_t len) {
    if (len < CHANNEL_HEADER_LEN + CHANNEL_SIGNATURE_LEN) {
        return;
    }
    const span body = {frame, len - CHANNEL_SIGNATURE_LEN};
    uint8_t *signature = frame + body.len, digest[32];
    const char *const tag[] = {NULL, CHANNEL_TAG_HELLO, CHANNEL_TAG_READY, NULL, NULL, CHANNEL_TAG_CONFIRM, CHANNEL_TAG_ABORT,
                               CHANNEL_TAG_BROADCAST};
    const uint8_t kind = frame[1];
    if (kind == TSS_FRAME_HELLO || kind == TSS_FRAME_CONFIRM || kind == TSS_FRAME_ABORT) {
        must(crypto_tagged(digest, tag[kind], body), "digest");
        sign(signature, who, digest);
    } else if ((kind == TSS_FRAME_READY || kind == TSS_FRAME_BROADCAST) && t->n > 2 && t->ends[who]->keys != NULL && body.len < 2048) {
        const tss_channel *c = t->ends[who];
        must(crypto_ed25519_sign(signature, c->keys->ed25519_seed32, c->members[who].ed25519_32, tag[kind], body), "ed25519");
    }
}

/* Edit what is inside a sealed frame, and seal it again. */
static size_t edit_inside(const table *t, size_t who, uint8_t *frame, size_t len, reader *program) {
    static uint8_t inside[ROOM];
    if (frame[1] != TSS_FRAME_SEALED || len < FRAME_SEALED_HEADER_LEN + CRYPTO_TAG_LEN || t->ours->tools.open == NULL) {
        return edit(frame, len, program);
    }
    const uint8_t *key = t->ours->keys->receive32[who];
    reader r = reader_open((span){frame, len});
    const frame_header header = frame_header_read(&r);
    if (!crypto_open(&t->ours->tools, inside, key, header.sequence, (span){frame, FRAME_SEALED_HEADER_LEN}, r.left)) {
        return len;
    }
    const size_t inside_len = edit(inside, r.left.len - CRYPTO_TAG_LEN, program);
    if (FRAME_SEALED_HEADER_LEN + inside_len + CRYPTO_TAG_LEN > ROOM) {
        return len;
    }
    must(crypto_seal(&t->ours->tools, frame + FRAME_SEALED_HEADER_LEN, key, header.sequence, (span){frame, FRAME_SEALED_HEADER_LEN},
                     (span){inside, inside_len}, (span){inside, 0}),
         "seal");
    return FRAME_SEALED_HEADER_LEN + inside_len + CRYPTO_TAG_LEN;
}

/* A statement that a seat makes out of nothing: an abort, a confirmation of another result, a broadcast it never sent. */
static size_t invent(const table *t, size_t who, uint8_t *out, uint8_t what) {
    writer w = writer_open(out, ROOM);
    const uint8_t *session = t->ours->ceremony.session16;
    if (what % 3 == 0) {
        tss_abort notice = {.session16 = {7}, .seat = (uint32_t)who + 1, .reason = "test"};
        memcpy(notice.party_id, t->ours->ceremony.members[who].party_id, sizeof notice.party_id);
        abort_write(&w, &notice);
    } else if (what % 3 == 1) {
        tss_confirmation c = {.kind = t->ours->ceremony.kind, .protocol = TSS_GG18_V2, .session16 = {7}, .result = {what}};
        c.seat = (uint32_t)who + 1;
        c.result_len = c.kind == TSS_SIGNING ? 64 : 32;
        if (c.kind == TSS_SIGNING && (what & 8) != 0) {
            memcpy(c.result, t->ours->signature64, 64);
        }
        memcpy(c.transcript32, t->ours->transcript32, 32);
        memcpy(c.committee32, t->ours->committee32, 32);
        confirmation_write(&w, &c);
    } else {
        const uint8_t hash[32] = {what};
        broadcast_write(&w, session, (uint32_t)who + 1, t->ours->transcript32, what & 3, hash);
    }
    writer_bytes(&w, (span){(const uint8_t[CHANNEL_SIGNATURE_LEN]){0}, CHANNEL_SIGNATURE_LEN});
    return w.len;
}

static void step(table *t, reader *program) {
    static uint8_t room[ROOM];
    const uint8_t op = reader_u8(program);
    size_t len = 0;
    switch (op & 7) {
    case 0: /* the next honest frame */
    case 1: /* any honest frame, again or early */
        if (t->frames_len > 0) {
            const size_t which = (op & 7) == 0 ? t->next++ % t->frames_len : (op >> 3) % t->frames_len;
            len = t->frames[which].len;
            memcpy(room, t->frames[which].data, len);
        }
        break;
    case 2: /* edited; signed again where bit 6 says so */
    case 3: /* edited inside */
        if (t->frames_len > 0) {
            const size_t which = (op >> 3 & 7) == 7 ? t->next % t->frames_len : (op >> 3 & 7) % t->frames_len;
            memcpy(room, t->frames[which].data, t->frames[which].len);
            len = t->frames[which].len;
            const size_t who = t->frames[which].who;
            len = (op & 7) == 2 ? edit(room, len, program) : edit_inside(t, who, room, len, program);
            if ((op & 0x40) != 0 && (op & 7) == 2) {
                sign_again(t, who, room, len);
            }
        }
        break;
    case 4: /* bytes */
        len = reader_u8(program);
        len = len < program->left.len ? len : program->left.len;
        if (len > 0) {
            memcpy(room, reader_take(program, len).at, len);
        }
        break;
    case 5: {
        const size_t who = 1 + (op >> 7) % (t->n - 1);
        len = invent(t, who, room, op >> 3 & 15);
        len = edit(room, len, program);
        sign_again(t, who, room, len);
        break;
    }
    case 6:
        t->now_ms += (uint64_t)(op >> 3) * 100;
        for (size_t i = 0; i < t->n; i++) {
            tss_channel_tick(t->ends[i], t->now_ms);
        }
        break;
    default:
        if (op >> 3 == 1) {
            uint8_t digest[32], signature[64];
            if (tss_channel_abort(t->ours, digest, "fuzz") == TSS_OK) {
                sign(signature, 0, digest);
                must(tss_channel_abort_signed(t->ours, signature) == TSS_OK, "no notice");
            }
        } else {
            tss_channel_connected(t->ours, t->now_ms);
        }
        break;
    }
    if (len > 0) {
        /* A copy of its own, so that reading behind its end is found. */
        uint8_t *frame = malloc(len);
        must(frame != NULL, "no memory");
        memcpy(frame, room, len);
        (void)!tss_channel_receive(t->ours, frame, len, t->now_ms);
        free(frame);
    }
    check(t);
    advance(t, 0);
    exchange(t);
    check(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    static const uint8_t seed[32] = {1};
    reader program = reader_open((span){data, len});
    tss_usage before, after;
    tss_arena_usage(&before);
    tss_seeded_randomness(seed);
    const tss_ceremony *ceremony = &terms[reader_u8(&program) & 3];
    table t = {.n = ceremony->members_len, .state = TSS_CHANNEL_HELLO};
    for (size_t i = 0; i < t.n; i++) {
        t.ends[i] = open_end(ceremony, i);
    }
    t.ours = t.ends[0];
    exchange(&t);
    for (unsigned steps = 0; program.left.len > 0 && steps < 100; steps++) {
        step(&t, &program);
    }
    for (size_t i = 0; i < t.n; i++) {
        tss_channel_free(t.ends[i]);
        tss_party_free(t.parties[i]);
    }
    for (size_t i = 0; i < t.frames_len; i++) {
        free(t.frames[i].data);
    }
    tss_arena_usage(&after);
    must(before.used == after.used || before.peak != after.peak, "memory of the arena is left behind");
    return 0;
}
