/* A libFuzzer target for everything of the core that takes bytes from outside: the loaders, the decoders of all message types, and
 * `receive` in every round of a keygen and of a signing, in the wire format that TSSD_FUZZ_PROTOCOL names.
 *
 * An input is: what to feed (1 byte), which message of the peer (1 byte), how (1 byte), then either raw bytes or edits of the honest
 * message, 4 bytes each. The ceremonies are replayed from a seed up to the message in question, so that the same input always does
 * the same. Besides what the sanitizers find, it is a defect when an honest party is blamed, when a refused message leaves the party
 * running, or when memory of the arena is left behind.
 *
 * TSSD_FUZZ_FIXTURES names a file of four lines: tss-lib's save data of seats 1 and 2 of a 2-of-2 key, and two pre-parameter sets. */

#ifndef TSS_SEEDED
#error "the target replays ceremonies: build it with -DTSS_SEEDED"
#endif

#include "../../tss_cffi/src/tss.c"

#include <stdio.h>
#include <stdlib.h>

enum { MESSAGES_MAX = 16, EDIT_LEN = 4, ROOM = TSS_MESSAGE_MAX };

static const uint32_t seats[] = {1, 2};
static const uint8_t digest32[32] = {0x9f, 0x86, 0xd0, 0x81};

/* What seat 2 sent in an honest ceremony, in order. */
typedef struct recording {
    bool keygen;
    size_t len;
    struct {
        tss_class class_;
        uint16_t round;
        uint8_t *data;
        size_t data_len;
    } message[MESSAGES_MAX];
} recording;

static tss_protocol fuzzed;
static tss_secret *saves[2], *sets[2];
static tss_share *shares[2];
static recording recordings[2] = {{.keygen = true}, {.keygen = false}};

static void must(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

/* Each step of a party draws from a stream of its own, so that the party replays without the other. */
static void seed(bool keygen, uint32_t seat, unsigned step) {
    const uint8_t seed32[32] = {(uint8_t)keygen, (uint8_t)seat, (uint8_t)step};
    tss_seeded_randomness(seed32);
}

static tss_secret *bytes(const uint8_t *data, size_t len) {
    tss_secret *held = NULL;
    must(tss_secret_new(&held, len) == TSS_OK, "no memory");
    memcpy(tss_secret_data(held), data, len);
    return held;
}

static tss_party *begin(bool keygen, size_t own) {
    tss_party *party = NULL;
    seed(keygen, seats[own], 0);
    if (keygen) {
        tss_secret *prepared = bytes(tss_secret_data(sets[own]), tss_secret_len(sets[own]));
        must(tss_keygen_begin(&party, fuzzed, seats[own], seats, 2, 2, prepared, NULL) == TSS_OK, "keygen begin");
        tss_secret_free(prepared);
    } else {
        must(tss_signing_begin(&party, shares[own], seats, 2, digest32, NULL) == TSS_OK, "signing begin");
    }
    return party;
}

static void record(recording *r) {
    tss_party *party[2] = {begin(r->keygen, 0), begin(r->keygen, 1)};
    unsigned step[2] = {0, 0};
    for (bool moving = true; moving;) {
        moving = false;
        for (size_t from = 0; from < 2; from++) {
            tss_message m;
            while (tss_party_outgoing(party[from], &m) == TSS_OK) {
                moving = true;
                if (from == 1) {
                    must(r->len < MESSAGES_MAX, "too many messages");
                    r->message[r->len].class_ = m.class_;
                    r->message[r->len].round = m.round;
                    r->message[r->len].data = malloc(m.data_len);
                    must(r->message[r->len].data != NULL, "no memory");
                    memcpy(r->message[r->len].data, m.data, m.data_len);
                    r->message[r->len++].data_len = m.data_len;
                }
                const size_t to = 1 - from;
                seed(r->keygen, seats[to], ++step[to]);
                must(tss_party_receive(party[to], seats[from], m.class_, m.data, m.data_len) == TSS_OK, "an honest message");
            }
        }
    }
    must(tss_party_state(party[0]) == TSS_DONE && tss_party_state(party[1]) == TSS_DONE, "an honest ceremony");
    tss_party_free(party[0]);
    tss_party_free(party[1]);
}

static tss_secret *line(FILE *file) {
    char *text = NULL;
    size_t room = 0;
    const ssize_t len = getline(&text, &room, file);
    must(len > 0, "TSSD_FUZZ_FIXTURES has too few lines");
    tss_secret *held = bytes((const uint8_t *)text, (size_t)len);
    free(text);
    return held;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    must(tss_open((size_t)32 * 1024 * 1024) == TSS_OK, "no arena");
    const char *format = getenv("TSSD_FUZZ_PROTOCOL");
    must(format != NULL && (strcmp(format, "gg18-v2") == 0 || strcmp(format, "gg18-v3") == 0),
         "TSSD_FUZZ_PROTOCOL names no wire format");
    fuzzed = strcmp(format, "gg18-v2") == 0 ? TSS_GG18_V2 : TSS_GG18_V3;
    const char *name = getenv("TSSD_FUZZ_FIXTURES");
    FILE *file = name == NULL ? NULL : fopen(name, "r");
    must(file != NULL, "TSSD_FUZZ_FIXTURES does not name a file");
    for (size_t i = 0; i < 2; i++) {
        saves[i] = line(file);
        tss_secret *kept = NULL;
        must(tss_share_import(&kept, fuzzed, 2, saves[i]) == TSS_OK, tss_last_misuse());
        must(tss_share_load(&shares[i], kept) == TSS_OK, tss_last_misuse());
        tss_secret_free(kept);
    }
    for (size_t i = 0; i < 2; i++) {
        tss_secret *json = line(file);
        must(tss_seeded_prepared(&sets[i], fuzzed, json) == TSS_OK, tss_last_misuse());
        tss_secret_free(json);
    }
    fclose(file);
    record(&recordings[0]);
    record(&recordings[1]);
    return 0;
}

/* The honest bytes, edited: set, change a bit, delete, insert, cut, double. */
static size_t edit(uint8_t *out, const uint8_t *honest, size_t len, const uint8_t *edits, size_t edits_len) {
    memcpy(out, honest, len);
    for (; edits_len >= EDIT_LEN && len > 0; edits += EDIT_LEN, edits_len -= EDIT_LEN) {
        const size_t at = (((size_t)edits[0] << 8 | edits[1]) + ((size_t)(edits[2] >> 3) << 16)) % len;
        const uint8_t value = edits[3];
        switch (edits[2] & 7) {
        case 0: out[at] = value; break;
        case 1: out[at] ^= (uint8_t)(1u << (value & 7)); break;
        case 2:
            memmove(out + at, out + at + 1, len - at - 1);
            len--;
            break;
        case 3:
            if (len < ROOM) {
                memmove(out + at + 1, out + at, len - at);
                out[at] = value;
                len++;
            }
            break;
        case 4: len = at; break;
        case 5: {
            const size_t more = value < ROOM - len ? value : ROOM - len;
            memmove(out + len, out + len - (more < len ? more : len), more < len ? more : len);
            len += more < len ? more : len;
            break;
        }
        case 6: memset(out + at, 0, value < len - at ? value : len - at); break;
        default: memset(out + at, 0xff, value < len - at ? value : len - at); break;
        }
    }
    return len;
}

static void feed_receive(const recording *r, size_t index, uint8_t how, const uint8_t *message, size_t len) {
    tss_party *party = begin(r->keygen, 0);
    for (unsigned i = 0; i < index; i++) {
        tss_message sent;
        while (tss_party_outgoing(party, &sent) == TSS_OK) {
        }
        seed(r->keygen, seats[0], i + 1);
        must(tss_party_receive(party, 2, r->message[i].class_, r->message[i].data, r->message[i].data_len) == TSS_OK, "replay");
    }
    tss_fault fault;
    const tss_class class_ = how & 0x40 ? (tss_class)(3 - (int)r->message[index].class_) : r->message[index].class_;
    const tss_status status = tss_party_receive(party, 2, class_, message, len);
    tss_party_fault(party, &fault);
    must((status == TSS_FAULT) == (tss_party_state(party) == TSS_FAILED), "a fault and the state differ");
    must((fault.reason != TSS_REASON_NONE) == (status == TSS_FAULT), "a fault without a reason");
    must(fault.culprits_len == 0 || (fault.culprits_len == 1 && fault.culprits[0] == 2), "the wrong party is blamed");
    must(fault.reason != TSS_REASON_INTERNAL, "our own failure");
    if (status == TSS_FAULT) {
        must(tss_party_receive(party, 2, class_, message, len) == TSS_FINAL, "a failed party went on");
    }
    tss_party_free(party);
}

static void feed_decoder(const recording *r, const uint8_t *message, size_t len) {
    static tss_party keygen_seat = {.n = 2}, signing_seat = {.n = 2};
    static keygen state = {.threshold = 2};
    keygen_seat.state = &state;
    size_t type;
    const ceremony *c = r->keygen ? &keygen_ceremony : &signing_ceremony;
    const char *problem = c->recognise(&type, r->keygen ? &keygen_seat : &signing_seat, (span){message, len});
    must(problem != NULL || type < c->types_len, "an unknown type was recognised");
    must(problem == NULL || strlen(problem) < sizeof(((tss_fault *)NULL)->detail), "a detail that does not fit");
}

static void feed_loader(uint8_t what, const uint8_t *data, size_t len) {
    if (len == 0) {
        return;
    }
    tss_secret *held = bytes(data, len), *made = NULL;
    tss_share *share = NULL;
    uint8_t out32[32 * FINGERPRINTS_MAX];
    size_t count = FINGERPRINTS_MAX;
    switch (what & 3) {
    case 0:
        (void)!tss_share_load_proven(&share, held);
        tss_share_free(share);
        (void)!tss_share_load(&share, held);
        break;
    case 1: (void)!tss_share_import(&made, fuzzed, 2, held); break;
    case 2: (void)!tss_prepared_fingerprints(out32, &count, held); break;
    default: (void)!tss_seeded_prepared(&made, fuzzed, held); break;
    }
    tss_share_free(share);
    tss_secret_free(made);
    tss_secret_free(held);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    static uint8_t message[ROOM];
    if (len < 3 || len > ROOM) {
        return 0;
    }
    const uint8_t what = data[0], which = data[1], how = data[2];
    data += 3;
    len -= 3;
    tss_usage before, after;
    tss_arena_usage(&before);
    if (what & 0x80) {
        const bool from_save = how & 1;
        if (from_save) {
            const tss_secret *honest = (what & 3) == 1 ? saves[which & 1] : sets[which & 1];
            len = edit(message, honest->data, honest->len, data, len);
            data = message;
        }
        feed_loader(what, data, len);
    } else {
        const recording *r = &recordings[what & 1];
        const size_t index = which % r->len;
        if (how & 1) {
            len = edit(message, r->message[index].data, r->message[index].data_len, data, len);
            data = message;
        }
        feed_decoder(r, data, len);
        /* The whole way costs a thousand times as much: few inputs take it. */
        if ((what & 0x7e) == 0x40) {
            feed_receive(r, index, how, data, len);
        }
    }
    tss_arena_usage(&after);
    must(before.used == after.used, "memory of the arena is left behind");
    return 0;
}
