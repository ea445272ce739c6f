#ifndef TSS_CHANNEL_CRYPTO_IMPL_H
#define TSS_CHANNEL_CRYPTO_IMPL_H

#include "../random.h"
#include "../secret.h"
#include "crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

/* ---- libcrypto's memory ---- */

/* True while the calling thread is inside a function marked SECRET. */
static _Thread_local bool crypto_in_arena = false;

/* A block of ours in the arena: its length, then the bytes. */
#define CRYPTO_PREFIX_LEN ((size_t)16)

static void *crypto_arena_malloc(size_t len) {
    uint8_t *block = len <= SIZE_MAX - CRYPTO_PREFIX_LEN ? secret_alloc(CRYPTO_PREFIX_LEN + len) : NULL;
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &len, sizeof len);
    return block + CRYPTO_PREFIX_LEN;
}

static void *crypto_malloc(size_t len, const char *file, int line) {
    (void)file;
    (void)line;
    return crypto_in_arena ? crypto_arena_malloc(len) : malloc(len);
}

static void crypto_free(void *data, const char *file, int line) {
    (void)file;
    (void)line;
    if (secret_owns(data)) {
        secret_free((uint8_t *)data - CRYPTO_PREFIX_LEN);
    } else {
        free(data);
    }
}

static void *crypto_realloc(void *data, size_t len, const char *file, int line) {
    size_t old_len = 0;
    if (data == NULL) {
        return crypto_malloc(len, file, line);
    }
    if (!secret_owns(data)) {
        return realloc(data, len);
    }
    memcpy(&old_len, (uint8_t *)data - CRYPTO_PREFIX_LEN, sizeof old_len);
    void *moved = crypto_arena_malloc(len);
    if (moved != NULL) {
        memcpy(moved, data, old_len < len ? old_len : len);
        crypto_free(data, file, line);
    }
    return moved;
}

/* As early as can be: libcrypto takes memory functions only before its first allocation. */
__attribute__((constructor)) static void crypto_memory_open(void) {
    (void)CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free);
}

INTERNAL int crypto_memory_is_ours(void) {
    CRYPTO_malloc_fn installed = NULL;
    CRYPTO_get_mem_functions(&installed, NULL, NULL);
    return installed == crypto_malloc;
}

typedef struct crypto_work {
    void (*function)(void *argument);
    void *argument;
} crypto_work;

static void crypto_inside(void *work) {
    const crypto_work *w = work;
    crypto_in_arena = true;
    w->function(w->argument);
    if (ERR_peek_error() != 0) {
        ERR_clear_error(); /* what an error says of itself was allocated here */
    }
    crypto_in_arena = false;
}

/* Run on the secret stack with libcrypto's allocations in the arena. */
static bool crypto_secretly(void (*function)(void *argument), void *argument) {
    crypto_work work = {function, argument};
    (void)ERR_peek_error(); /* makes the thread's error state, which outlives the call, on the heap */
    return secret_call(crypto_inside, &work);
}

/* ---- Public ---- */

INTERNAL bool crypto_sha256(uint8_t *out32, const span *parts, size_t parts_len) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = context != NULL && EVP_DigestInit_ex2(context, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; ok && i < parts_len; i++) {
        ok = EVP_DigestUpdate(context, parts[i].at, parts[i].len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(context, out32, NULL) == 1;
    EVP_MD_CTX_free(context);
    return ok;
}

INTERNAL bool crypto_tagged(uint8_t *out32, const char *tag, span body) {
    /* The terminating NUL of the tag is the 0x00 behind it. */
    const span parts[] = {{(const uint8_t *)tag, strlen(tag) + 1}, body};
    return crypto_sha256(out32, parts, 2);
}

/* floor(n / 2) of P-256 (FIPS 186-4, D.1.2.3). */
static const uint8_t crypto_p256_half[32] = {
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
};

INTERNAL crypto_identity *crypto_identity_open(const uint8_t *identity33) {
    char group[] = "prime256v1";
    uint8_t public33[33];
    memcpy(public33, identity33, sizeof public33);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, public33, sizeof public33),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (context == NULL || (identity33[0] != 2 && identity33[0] != 3) || EVP_PKEY_fromdata_init(context) != 1
        || EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)parameters) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    return key;
}

INTERNAL void crypto_identity_close(crypto_identity *identity) {
    EVP_PKEY_free(identity);
}

/* r and s as ECDSA-Sig-Value (RFC 3279), at most 72 bytes. */
static size_t crypto_signature_der(uint8_t *der72, const uint8_t *signature64) {
    ECDSA_SIG *signature = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature64, 32, NULL);
    BIGNUM *s = BN_bin2bn(signature64 + 32, 32, NULL);
    int len = 0;
    if (signature != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(signature, r, s) == 1) {
        r = NULL; /* the signature owns them now */
        s = NULL;
        uint8_t *end = der72;
        len = i2d_ECDSA_SIG(signature, &end);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(signature);
    return len > 0 ? (size_t)len : 0;
}

INTERNAL bool crypto_identity_verify(crypto_identity *identity, const uint8_t *digest32, const uint8_t *signature64) {
    if (memcmp(signature64 + 32, crypto_p256_half, sizeof crypto_p256_half) > 0) {
        return false; /* high s: the second form of somebody's signature, made by a stranger */
    }
    uint8_t der[72];
    const size_t der_len = crypto_signature_der(der, signature64);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, identity, NULL);
    const bool ok = der_len != 0 && context != NULL && EVP_PKEY_verify_init(context) == 1
        && EVP_PKEY_verify(context, der, der_len, digest32, 32) == 1;
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    return ok;
}

/* tag || 0x00 || body in one piece: Ed25519 hashes its message twice and so has no streaming form. */
#define CRYPTO_SIGNED_MAX ((size_t)2048 + 64)

static span crypto_signed_bytes(uint8_t *room, const char *tag, span body) {
    writer w = writer_open(room, CRYPTO_SIGNED_MAX);
    writer_bytes(&w, (span){(const uint8_t *)tag, strlen(tag) + 1});
    writer_bytes(&w, body);
    return (span){room, w.ok ? w.len : 0};
}

INTERNAL bool crypto_ed25519_verify(const uint8_t *public32, const char *tag, span body, const uint8_t *signature64) {
    uint8_t room[CRYPTO_SIGNED_MAX];
    const span message = crypto_signed_bytes(room, tag, body);
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, public32, 32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const bool ok = message.len != 0 && key != NULL && context != NULL
        && EVP_DigestVerifyInit_ex(context, NULL, NULL, NULL, NULL, key, NULL) == 1
        && EVP_DigestVerify(context, signature64, CHANNEL_SIGNATURE_LEN, message.at, message.len) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

INTERNAL bool crypto_ed25519_is_small(const uint8_t *public32) {
    /* y of the points of order 1, 2, 4, 8, little-endian, and y + p where that still fits 255 bits. The sign bit is ignored. */
    static const uint8_t small[7][32] = {
        {0},
        {1},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
         0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
         0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    };
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        if (memcmp(public32, small[i], 31) == 0 && (public32[31] & 0x7f) == small[i][31]) {
            return true;
        }
    }
    return false;
}

/* ---- Secret ---- */

typedef struct crypto_public_work {
    uint8_t *public32;
    const char *algorithm;
    const uint8_t *private32;
    bool ok;
} crypto_public_work;

static void crypto_public_inside(void *work) {
    crypto_public_work *w = work;
    size_t len = 32;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key_ex(NULL, w->algorithm, NULL, w->private32, 32);
    w->ok = key != NULL && EVP_PKEY_get_raw_public_key(key, w->public32, &len) == 1 && len == 32;
    EVP_PKEY_free(key);
    DECLASSIFY(w->public32, 32); /* it is the public key */
}

INTERNAL bool crypto_x25519_public(uint8_t *public32, const uint8_t *private32) {
    crypto_public_work work = {public32, "X25519", private32, false};
    return crypto_secretly(crypto_public_inside, &work) && work.ok;
}

INTERNAL bool crypto_ed25519_public(uint8_t *public32, const uint8_t *seed32) {
    crypto_public_work work = {public32, "ED25519", seed32, false};
    return crypto_secretly(crypto_public_inside, &work) && work.ok;
}

/* With the public half at hand libcrypto need not compute it, which costs as much as using the key. */
static EVP_PKEY *crypto_pair(const char *algorithm, const uint8_t *private32, const uint8_t *public32) {
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, (void *)(uintptr_t)private32, 32),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)public32, 32),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, algorithm, NULL);
    if (context == NULL || EVP_PKEY_fromdata_init(context) != 1
        || EVP_PKEY_fromdata(context, &key, EVP_PKEY_KEYPAIR, (OSSL_PARAM *)(uintptr_t)parameters) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    return key;
}

typedef struct crypto_agree_work {
    uint8_t *send_key32;
    uint8_t *receive_key32;
    const uint8_t *private32;
    const uint8_t *public32;
    const uint8_t *peer_public32;
    const uint8_t *transcript32;
    uint32_t self;
    uint32_t peer;
    crypto_agreement outcome;
} crypto_agree_work;

static bool crypto_hkdf(uint8_t *out32, const uint8_t *secret32, const uint8_t *salt32, uint32_t from, uint32_t to) {
    uint8_t secret[32];
    uint8_t salt[32];
    uint8_t room[sizeof CHANNEL_TAG_FRAME + 8];
    char digest[] = "SHA256";
    writer info = writer_open(room, sizeof room);
    writer_bytes(&info, span_of_text(CHANNEL_TAG_FRAME));
    writer_u32(&info, from);
    writer_u32(&info, to);
    memcpy(secret, secret32, sizeof secret);
    memcpy(salt, salt32, sizeof salt);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, sizeof secret),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof salt),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, room, info.len),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    const bool ok = context != NULL && EVP_KDF_derive(context, out32, 32, parameters) == 1;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return ok;
}

static bool crypto_x25519(
    uint8_t *shared32, const uint8_t *private32, const uint8_t *public32, const uint8_t *peer_public32) {
    size_t len = 32;
    EVP_PKEY *own = crypto_pair("X25519", private32, public32);
    EVP_PKEY *peer = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, peer_public32, 32);
    EVP_PKEY_CTX *context = own != NULL ? EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL) : NULL;
    const bool ok = context != NULL && peer != NULL && EVP_PKEY_derive_init(context) == 1
        && EVP_PKEY_derive_set_peer_ex(context, peer, 0) == 1 && EVP_PKEY_derive(context, shared32, &len) == 1 && len == 32;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(own);
    return ok;
}

static void crypto_agree_inside(void *work) {
    static const uint8_t zero[32] = {0};
    crypto_agree_work *w = work;
    uint8_t shared[32] = {1}; /* libcrypto calls a zero result a failure; any other failure leaves this */
    const bool derived = crypto_x25519(shared, w->private32, w->public32, w->peer_public32);
    uint64_t low_order = ct_equal(shared, zero, sizeof shared);
    DECLASSIFY(&low_order, sizeof low_order); /* a property of the peer's public key: its order divides 8 */
    if (low_order == 1) {
        w->outcome = CRYPTO_LOW_ORDER;
    } else if (derived && crypto_hkdf(w->send_key32, shared, w->transcript32, w->self, w->peer)
               && crypto_hkdf(w->receive_key32, shared, w->transcript32, w->peer, w->self)) {
        w->outcome = CRYPTO_AGREED;
    }
}

INTERNAL crypto_agreement crypto_agree(
    uint8_t *send_key32, uint8_t *receive_key32, const uint8_t *private32, const uint8_t *public32,
    const uint8_t *peer_public32, const uint8_t *transcript32, uint32_t self, uint32_t peer) {
    crypto_agree_work work = {send_key32, receive_key32, private32, public32, peer_public32, transcript32, self, peer, CRYPTO_BROKEN};
    const bool ran = crypto_secretly(crypto_agree_inside, &work);
    return ran ? work.outcome : CRYPTO_BROKEN;
}

typedef struct crypto_sign_work {
    uint8_t *signature64;
    const uint8_t *seed32;
    const uint8_t *public32;
    span message;
    bool ok;
} crypto_sign_work;

static void crypto_sign_inside(void *work) {
    crypto_sign_work *w = work;
    size_t len = CHANNEL_SIGNATURE_LEN;
    EVP_PKEY *key = crypto_pair("ED25519", w->seed32, w->public32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    w->ok = key != NULL && context != NULL && EVP_DigestSignInit_ex(context, NULL, NULL, NULL, NULL, key, NULL) == 1
        && EVP_DigestSign(context, w->signature64, &len, w->message.at, w->message.len) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    DECLASSIFY(w->signature64, CHANNEL_SIGNATURE_LEN); /* it is sent */
}

INTERNAL bool crypto_ed25519_sign(
    uint8_t *signature64, const uint8_t *seed32, const uint8_t *public32, const char *tag, span body) {
    uint8_t room[CRYPTO_SIGNED_MAX];
    crypto_sign_work work = {signature64, seed32, public32, crypto_signed_bytes(room, tag, body), false};
    return work.message.len != 0 && crypto_secretly(crypto_sign_inside, &work) && work.ok;
}

/* A context holds an algorithm from its first use on; setting the algorithm again would make its state anew. */
static const EVP_CIPHER *crypto_aead_of(const crypto_tools *tools, const EVP_CIPHER_CTX *context) {
    return EVP_CIPHER_CTX_get0_cipher(context) == NULL ? tools->aead : NULL;
}

static void crypto_tools_inside(void *work) {
    crypto_tools *tools = work;
    tools->hash = EVP_MD_CTX_new();
    tools->seal = EVP_CIPHER_CTX_new();
    tools->open = EVP_CIPHER_CTX_new();
}

INTERNAL bool crypto_tools_open(crypto_tools *tools) {
    /* What is looked up is libcrypto's own, shared by all and nobody's secret: on the heap. */
    *tools = (crypto_tools){
        .sha256 = EVP_MD_fetch(NULL, "SHA256", NULL), .aead = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL)};
    return tools->sha256 != NULL && tools->aead != NULL && crypto_secretly(crypto_tools_inside, tools) && tools->hash != NULL
        && tools->seal != NULL && tools->open != NULL;
}

INTERNAL void crypto_tools_close(crypto_tools *tools) {
    EVP_MD_CTX_free(tools->hash);
    EVP_CIPHER_CTX_free(tools->seal);
    EVP_CIPHER_CTX_free(tools->open);
    EVP_MD_free(tools->sha256);
    EVP_CIPHER_free(tools->aead);
    *tools = (crypto_tools){0};
}

typedef struct crypto_hash_work {
    const crypto_tools *tools;
    uint8_t *out32;
    span data;
    bool ok;
} crypto_hash_work;

static void crypto_sha256_inside(void *work) {
    crypto_hash_work *w = work;
    EVP_MD_CTX *context = w->tools->hash;
    w->ok = EVP_DigestInit_ex2(context, w->tools->sha256, NULL) == 1
        && EVP_DigestUpdate(context, w->data.at, w->data.len) == 1 && EVP_DigestFinal_ex(context, w->out32, NULL) == 1;
    DECLASSIFY(w->out32, 32); /* echoes and statements tell it */
}

INTERNAL bool crypto_sha256_secret(const crypto_tools *tools, uint8_t *out32, span data) {
    crypto_hash_work work = {tools, out32, data, false};
    return crypto_secretly(crypto_sha256_inside, &work) && work.ok;
}

typedef struct crypto_aead_work {
    const crypto_tools *tools;
    uint8_t *out;
    const uint8_t *key32;
    uint8_t nonce[12];
    span associated;
    span input[2];
    const uint8_t *tag16; /* opening only */
    bool ok;
} crypto_aead_work;

static void crypto_nonce(uint8_t *nonce12, uint64_t sequence) {
    writer w = writer_open(nonce12, 12);
    writer_u32(&w, 0);
    writer_u64(&w, sequence);
}

static bool crypto_update(EVP_CIPHER_CTX *context, uint8_t *out, span input) {
    int len = 0;
    return EVP_CipherUpdate(context, out, &len, input.at, (int)input.len) == 1 && len == (int)input.len;
}

/* On the ordinary heap a key stays for one call. */
static void crypto_aead_done(EVP_CIPHER_CTX *context) {
    if (!crypto_memory_is_ours()) {
        (void)EVP_CIPHER_CTX_reset(context);
    }
}

static void crypto_seal_inside(void *work) {
    crypto_aead_work *w = work;
    int len = 0;
    EVP_CIPHER_CTX *context = w->tools->seal;
    uint8_t *second = w->out + w->input[0].len;
    uint8_t *tag = second + w->input[1].len;
    w->ok = EVP_EncryptInit_ex2(context, crypto_aead_of(w->tools, context), w->key32, w->nonce, NULL) == 1
        && crypto_update(context, NULL, w->associated) && crypto_update(context, w->out, w->input[0])
        && crypto_update(context, second, w->input[1]) && EVP_EncryptFinal_ex(context, tag, &len) == 1
        && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, (int)CRYPTO_TAG_LEN, tag) == 1;
    crypto_aead_done(context);
    DECLASSIFY(w->out, w->input[0].len + w->input[1].len + CRYPTO_TAG_LEN); /* it is sent */
}

INTERNAL bool crypto_seal(const crypto_tools *tools, uint8_t *out, const uint8_t *key32, uint64_t sequence, span associated,
                          span first, span second) {
    crypto_aead_work work = {
        .tools = tools, .out = out, .key32 = key32, .associated = associated, .input = {first, second}};
    crypto_nonce(work.nonce, sequence);
    return crypto_secretly(crypto_seal_inside, &work) && work.ok;
}

static void crypto_open_inside(void *work) {
    crypto_aead_work *w = work;
    int len = 0;
    EVP_CIPHER_CTX *context = w->tools->open;
    w->ok = EVP_DecryptInit_ex2(context, crypto_aead_of(w->tools, context), w->key32, w->nonce, NULL) == 1
        && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, (int)CRYPTO_TAG_LEN, (void *)(uintptr_t)w->tag16) == 1
        && crypto_update(context, NULL, w->associated) && crypto_update(context, w->out, w->input[0])
        && EVP_DecryptFinal_ex(context, w->out + w->input[0].len, &len) == 1;
    crypto_aead_done(context);
    if (!w->ok) {
        secret_wipe(w->out, w->input[0].len);
        ERR_clear_error();
    }
}

INTERNAL bool crypto_open(
    const crypto_tools *tools, uint8_t *out, const uint8_t *key32, uint64_t sequence, span associated, span sealed) {
    reader r = reader_open(sealed);
    const span ciphertext = reader_take(&r, sealed.len - CRYPTO_TAG_LEN);
    const span tag = reader_take(&r, CRYPTO_TAG_LEN);
    crypto_aead_work work = {
        .tools = tools, .out = out, .key32 = key32, .associated = associated, .input = {ciphertext}, .tag16 = tag.at};
    crypto_nonce(work.nonce, sequence);
    return r.ok && crypto_secretly(crypto_open_inside, &work) && work.ok;
}

/* ---- Once ---- */

INTERNAL bool crypto_warm_up(void) {
    static const uint8_t worthless[32] = {9};
    uint8_t public_keys[2][32];
    uint8_t keys[2][32];
    uint8_t room[64 + CRYPTO_TAG_LEN];
    crypto_public_work exchange = {public_keys[0], "X25519", worthless, false};
    crypto_public_inside(&exchange);
    crypto_public_work signing = {public_keys[1], "ED25519", worthless, false};
    crypto_public_inside(&signing);
    crypto_agree_work agree = {
        keys[0], keys[1], worthless, public_keys[0], public_keys[0], worthless, 1, 2, CRYPTO_BROKEN};
    crypto_agree_inside(&agree);
    crypto_sign_work sign = {room, worthless, public_keys[1], {worthless, sizeof worthless}, false};
    crypto_sign_inside(&sign);
    crypto_tools tools = {
        .sha256 = EVP_MD_fetch(NULL, "SHA256", NULL), .aead = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL)};
    crypto_tools_inside(&tools);
    if (tools.sha256 == NULL || tools.aead == NULL || tools.hash == NULL || tools.seal == NULL || tools.open == NULL) {
        crypto_tools_close(&tools);
        return false;
    }
    crypto_hash_work hash = {&tools, keys[0], {worthless, sizeof worthless}, false};
    crypto_sha256_inside(&hash);
    crypto_aead_work seal = {.tools = &tools, .out = room, .key32 = worthless, .input = {{worthless, 32}, {worthless, 32}}};
    crypto_seal_inside(&seal);
    uint8_t opened[64];
    crypto_aead_work open = {.tools = &tools, .out = opened, .key32 = worthless, .input = {{room, 64}}, .tag16 = room + 64};
    crypto_open_inside(&open);
    const bool ok = exchange.ok && signing.ok && agree.outcome == CRYPTO_AGREED && sign.ok && hash.ok && seal.ok && open.ok;
    open.tag16 = room; /* a failure, too, allocates: its error strings */
    crypto_open_inside(&open);
    crypto_tools_close(&tools);
    return ok && !open.ok;
}

#endif
