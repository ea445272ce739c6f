#ifndef TSS_CHANNEL_CRYPTO_H
#define TSS_CHANNEL_CRYPTO_H

#include "../check.h"
#include "../wire.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The channel's primitives, all of them libcrypto's.
 *
 * Where libcrypto keeps keys. Its contexts copy keys to the heap. So our memory functions are installed when this library is
 * loaded (CRYPTO_set_mem_functions; refused by libcrypto once it has allocated anything), and while one of the functions below
 * marked SECRET runs, on the secret stack, what libcrypto allocates comes out of the arena. Contexts live for one call, but for those of
 * crypto_tools, which live as long as the traffic keys, and beside them. */

/** 1: the memory functions are ours. 0: libcrypto was in use before; its contexts lie on the heap, wiped when freed. */
INTERNAL int crypto_memory_is_ours(void);

/** Fetch and run every algorithm once, on worthless input, so that what libcrypto keeps for itself is allocated on the heap. Once in
 *  a process, when the arena is made. False: the library lacks an algorithm. */
INTERNAL MUST_USE bool crypto_warm_up(void);

/** SHA-256 over the parts, one after the other. False: no memory. */
INTERNAL MUST_USE bool crypto_sha256(uint8_t *out32, const span *parts, size_t parts_len);

/** SHA-256(tag || 0x00 || body). */
INTERNAL MUST_USE bool crypto_tagged(uint8_t *out32, const char *tag, span body);

/* An identity key, ready to verify. */
typedef EVP_PKEY crypto_identity;

/** From a compressed point of P-256; NULL where it is none. */
INTERNAL MUST_USE crypto_identity *crypto_identity_open(const uint8_t *identity33);
INTERNAL void crypto_identity_close(crypto_identity *identity);

/** ECDSA over a digest: r||s, low s only. */
INTERNAL bool crypto_identity_verify(crypto_identity *identity, const uint8_t *digest32, const uint8_t *signature64);

/** Ed25519 over tag || 0x00 || body. */
INTERNAL bool crypto_ed25519_verify(const uint8_t *public32, const char *tag, span body, const uint8_t *signature64);

/** True for the encodings, canonical or not, of the points of order 1, 2, 4 and 8: under such a key anybody can sign. */
INTERNAL bool crypto_ed25519_is_small(const uint8_t *public32);

/* ---- SECRET: keys and plaintext lie in the arena, and so does all that libcrypto makes of them ---- */

/** The public keys of given private ones. */
INTERNAL MUST_USE bool crypto_x25519_public(uint8_t *public32, const uint8_t *private32);
INTERNAL MUST_USE bool crypto_ed25519_public(uint8_t *public32, const uint8_t *seed32);

typedef enum crypto_agreement { CRYPTO_AGREED, CRYPTO_LOW_ORDER, CRYPTO_BROKEN } crypto_agreement;

/** X25519, then HKDF-SHA256 with salt T and info "tssd/1/frame" || from || to: the key of each direction. CRYPTO_LOW_ORDER: the
 *  shared value is zero (RFC 7748, 6.1), and peer_public32 a point of low order. */
INTERNAL MUST_USE crypto_agreement crypto_agree(
    uint8_t *send_key32, uint8_t *receive_key32, const uint8_t *private32, const uint8_t *public32,
    const uint8_t *peer_public32, const uint8_t *transcript32, uint32_t self, uint32_t peer);

/** Ed25519 (RFC 8032, deterministic) over tag || 0x00 || body; the body is at most 2 KiB. public32 MUST be the seed's own. */
INTERNAL MUST_USE bool crypto_ed25519_sign(
    uint8_t *signature64, const uint8_t *seed32, const uint8_t *public32, const char *tag, span body);

/* What sealing, opening and hashing of frames use again and again: algorithms looked up once, and contexts that lie in the arena. Where
 * the memory functions are not ours they hold a key for one call only. All zero: none. */
typedef struct crypto_tools {
    EVP_MD *sha256;
    EVP_MD_CTX *hash;
    EVP_CIPHER *aead;
    EVP_CIPHER_CTX *seal;
    EVP_CIPHER_CTX *open;
} crypto_tools;

/** False: no memory; then, too, they must be closed. */
INTERNAL MUST_USE bool crypto_tools_open(crypto_tools *tools);
INTERNAL void crypto_tools_close(crypto_tools *tools);

/** SHA-256 of secret bytes. */
INTERNAL MUST_USE bool crypto_sha256_secret(const crypto_tools *tools, uint8_t *out32, span data);

#define CRYPTO_TAG_LEN ((size_t)16)

/** ChaCha20-Poly1305 (RFC 8439), nonce = 4 zero bytes || sequence. out has room for both parts and the tag. */
INTERNAL MUST_USE bool crypto_seal(
    const crypto_tools *tools, uint8_t *out, const uint8_t *key32, uint64_t sequence, span associated, span first, span second);

/** The reverse: out, in the arena, has room for sealed.len - CRYPTO_TAG_LEN bytes, which is at least 0. False: a bad tag (out is
 *  wiped), or no memory. */
INTERNAL MUST_USE bool crypto_open(
    const crypto_tools *tools, uint8_t *out, const uint8_t *key32, uint64_t sequence, span associated, span sealed);

#endif
