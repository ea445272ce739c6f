/* Constant time of the channel, checked by valgrind: private keys are marked as undefined where they are drawn, and so are the messages
 * that the parties hand over; a branch or an address that depends on either is reported. Whole ceremonies of three, where broadcasts are
 * signed, and of two, and one that is broken off: nothing may leak, or be left in the arena. */

#include "tss.c"

#include "mute.h"

static tss_channel *ends[SEATS_MAX];
static tss_party *parties[SEATS_MAX];

static void sign_for(size_t who, const uint8_t *digest32, tss_status (*take)(size_t who, const uint8_t *rs64)) {
    uint8_t rs64[64];
    identity_sign(rs64, who, digest32);
    must(take(who, rs64) == TSS_OK);
}

static tss_status start(size_t who, const uint8_t *rs64) { return tss_channel_start(ends[who], rs64); }
static tss_status confirm(size_t who, const uint8_t *rs64) { return tss_channel_confirm(ends[who], rs64, 0); }

/* A traffic key is still secret: that shows that the marks were there all the time. */
static void must_be_secret(const uint8_t *key32) {
#ifdef TSS_CTIME
    uint8_t bits[32];
    must(VALGRIND_GET_VBITS(key32, bits, sizeof bits) == 1);
    for (size_t i = 0; i < sizeof bits; i++) {
        must(bits[i] != 0);
    }
#endif
    must(key32 != NULL);
}

/* What a custodian does when the state asks for it. */
static void advance(size_t who) {
    static const uint8_t result32[32] = {9};
    uint8_t digest[32];
    if (tss_channel_state_of(ends[who]) == TSS_CHANNEL_AGREED) {
        for (size_t i = 0; i < terms.members_len; i++) {
            if (i != who) {
                must_be_secret(ends[who]->keys->send32[i]);
                must_be_secret(ends[who]->keys->receive32[i]);
            }
        }
        if (terms.members_len > 2) {
            must_be_secret(ends[who]->keys->ed25519_seed32);
        }
        parties[who] = mute_begin((uint32_t)who + 1);
        must(tss_channel_attach(ends[who], parties[who], 0) == TSS_OK);
    }
    if (tss_channel_state_of(ends[who]) == TSS_CHANNEL_RESULT) {
        must(tss_channel_confirmation_digest(ends[who], digest, terms.kind == TSS_SIGNING ? NULL : result32, 0) == TSS_OK);
        sign_for(who, digest, confirm);
    }
}

/* A ready that lists our hellos, and between two a valid signature's confirmation: not for their own signature, whose bit was changed. */
static bool counts_unsigned(uint8_t kind) {
    return kind == TSS_FRAME_READY || (kind == TSS_FRAME_CONFIRM && terms.kind == TSS_SIGNING && terms.members_len == 2);
}

/* Frames are public: what stands in them has been declassified where it was sealed. Each also comes once with a bit of its tag changed. */
static size_t carry(size_t from) {
    tss_frame frame;
    size_t moved = 0;
    while (tss_channel_outgoing(ends[from], &frame) == TSS_OK) {
#ifdef TSS_CTIME
        must(VALGRIND_CHECK_MEM_IS_DEFINED(frame.data, frame.data_len) == 0);
#endif
        uint8_t *changed = malloc(frame.data_len);
        must(changed != NULL);
        memcpy(changed, frame.data, frame.data_len);
        changed[frame.data_len - 1] ^= 1;
        for (size_t to = 0; to < terms.members_len; to++) {
            if (to != from && (frame.to == TSS_BROADCAST || frame.to == to + 1)) {
                must(tss_channel_receive(ends[to], changed, frame.data_len, 0) == TSS_NOTHING || counts_unsigned(frame.data[1]));
                (void)!tss_channel_receive(ends[to], frame.data, frame.data_len, 0);
                advance(to);
            }
        }
        free(changed);
        moved++;
    }
    return moved;
}

static void run(tss_ceremony_kind kind, uint16_t n, size_t stop_after) {
    uint8_t digest[32];
    terms.kind = kind;
    terms.members_len = n;
    terms.has_public = terms.has_digest = kind == TSS_SIGNING;
    for (uint32_t i = 0; i < n; i++) {
        tss_ceremony own = terms;
        own.seat = i + 1;
        parties[i] = NULL;
        must(tss_channel_new(&ends[i], &own) == TSS_OK);
        tss_channel_hello_digest(ends[i], digest);
        sign_for(i, digest, start);
    }
    for (size_t moved = 1, all = 0; moved > 0 && all < stop_after; all += moved) {
        moved = 0;
        for (size_t i = 0; i < n; i++) {
            moved += carry(i);
        }
    }
    for (size_t i = 0; i < n; i++) {
        must(stop_after < SIZE_MAX || tss_channel_state_of(ends[i]) == TSS_CHANNEL_COMPLETE);
        tss_channel_free(ends[i]);
        tss_party_free(parties[i]);
    }
}

int main(void) {
    must(tss_open((size_t)4 * 1024 * 1024) == TSS_OK);
    mute_open();
    run(TSS_SIGNING, 3, SIZE_MAX);
    run(TSS_SIGNING, 2, SIZE_MAX);
    run(TSS_KEYGEN, 2, SIZE_MAX);
    run(TSS_KEYGEN, 2, 9);
    mute_close();
    must(tss_close() == TSS_OK); /* nothing is left in the arena */
    return 0;
}
