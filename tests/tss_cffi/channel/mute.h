#ifndef TESTS_CHANNEL_MUTE_H
#define TESTS_CHANNEL_MUTE_H

/* A ceremony with the messages of a GG18 signing and none of its mathematics, for what is looked at is the channel alone; and identity
 * keys that stand in for an HSM's. To be included behind tss.c. */

#include <openssl/ec.h>
#include <stdio.h>

enum { SEATS_MAX = 5 };
static EVP_PKEY *identity[SEATS_MAX];
static tss_ceremony terms; /* a signing, as seat 1 sees it */

static void must(bool holds) {
    if (!holds) {
        (void)fprintf(stderr, "channel: a step failed\n");
        exit(1);
    }
}

static const struct {
    uint16_t round;
    tss_class class_;
    size_t len;
} gg18[] = {{1, TSS_CLASS_DIRECT, 2332}, {1, TSS_CLASS_BROADCAST, 105}, {2, TSS_CLASS_DIRECT, 6859}, {3, TSS_CLASS_BROADCAST, 104},
            {4, TSS_CLASS_BROADCAST, 275}, {5, TSS_CLASS_BROADCAST, 104}, {6, TSS_CLASS_BROADCAST, 479}, {7, TSS_CLASS_BROADCAST, 104},
            {8, TSS_CLASS_BROADCAST, 241}, {9, TSS_CLASS_BROADCAST, 104}};
enum { TYPES = sizeof gg18 / sizeof gg18[0], ROUNDS = 9 };

static const char *mute_recognise(size_t *type, const tss_party *party, span text) {
    (void)party;
    uint8_t first = text.at[0];
    DECLASSIFY(&first, 1);
    *type = first;
    return NULL;
}

static bool mute_compute(tss_party *party, uint16_t round) {
    for (size_t type = 0; type < TYPES; type++) {
        const bool direct = gg18[type].class_ == TSS_CLASS_DIRECT;
        for (size_t to = 0; gg18[type].round == round && to < (direct ? party->n : 1); to++) {
            uint8_t *out = direct && to == party->own ? NULL : party_send(party, type, direct ? to : SIZE_MAX, gg18[type].len);
            if (out != NULL) {
                memset(out, 0, gg18[type].len);
                out[0] = (uint8_t)type;
                CLASSIFY(out, gg18[type].len); /* so may the messages of a protocol be */
            }
        }
    }
    /* The key is 1, the hash 0: with the nonce 1, r and s are both the generator's x. */
    uint8_t xy[64];
    point_xy(xy, curve_generator());
    memcpy(party->signature64, xy, 32);
    memcpy(party->signature64 + 32, xy, 32);
    party->has_signature = round > ROUNDS;
    return true;
}

static void mute_end(tss_party *party) { secret_free(party->state); }

static ceremony mute = {.rounds = ROUNDS, .types_len = TYPES, .recognise = mute_recognise, .compute = mute_compute, .end = mute_end};

static void mute_begin_run(void *party) { must(party_begin(party) == TSS_OK); }

static tss_party *mute_begin(uint32_t seat) {
    static const uint32_t seats[SEATS_MAX] = {1, 2, 3, 4, 5};
    tss_party *party = party_new(&mute, seat, seats, terms.members_len);
    must(party != NULL);
    party->state = secret_alloc(1);
    must(party->state != NULL && secret_call(mute_begin_run, party));
    return party;
}

/* As an HSM would; r||s with low s. */
static void identity_sign(uint8_t *rs64, size_t who, const uint8_t *digest32) {
    uint8_t der[80];
    size_t der_len = sizeof der;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(identity[who], NULL);
    must(EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_sign(context, der, &der_len, digest32, 32) == 1);
    EVP_PKEY_CTX_free(context);
    const uint8_t *at = der;
    ECDSA_SIG *made = d2i_ECDSA_SIG(NULL, &at, (long)der_len);
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BIGNUM *s = BN_dup(ECDSA_SIG_get0_s(made));
    must(BN_bn2binpad(ECDSA_SIG_get0_r(made), rs64, 32) == 32 && BN_bn2binpad(s, rs64 + 32, 32) == 32);
    if (memcmp(rs64 + 32, crypto_p256_half, 32) > 0) {
        must(BN_sub(s, EC_GROUP_get0_order(group), s) == 1 && BN_bn2binpad(s, rs64 + 32, 32) == 32);
    }
    BN_free(s);
    EC_GROUP_free(group);
    ECDSA_SIG_free(made);
}

static void mute_open(void) {
    terms = (tss_ceremony){.kind = TSS_SIGNING, .protocol = TSS_GG18_V2, .session16 = {7}, .seat = 1, .threshold = 2};
    terms.has_public = terms.has_digest = 1;
    point_compress(terms.public33, curve_generator());
    for (uint32_t i = 0; i < SEATS_MAX; i++) {
        size_t len = 0;
        tss_member *member = &terms.members[i];
        identity[i] = EVP_EC_gen("P-256");
        member->seat = i + 1;
        (void)snprintf(member->party_id, sizeof member->party_id, "user%u-server", i + 1);
        must(identity[i] != NULL
             && EVP_PKEY_set_utf8_string_param(identity[i], OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "compressed") == 1
             && EVP_PKEY_get_octet_string_param(identity[i], OSSL_PKEY_PARAM_PUB_KEY, member->identity33, 33, &len) == 1);
    }
    terms.members_len = 2;
    for (size_t type = 0; type < TYPES; type++) {
        mute.types[type] = (party_type){gg18[type].round, gg18[type].class_};
    }
}

static void mute_close(void) {
    for (size_t i = 0; i < SEATS_MAX; i++) {
        EVP_PKEY_free(identity[i]);
    }
}

#endif
