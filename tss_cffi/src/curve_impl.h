#ifndef TSS_CURVE_IMPL_H
#define TSS_CURVE_IMPL_H

#include "curve.h"
#include "random.h"
#include "secret.h"

#include <gmp.h>
#include <secp256k1.h>
#include <secp256k1_ecdh.h>
#include <secp256k1_preallocated.h>
#include <secp256k1_recovery.h>
#include <string.h>

/* Scalars are 4 limbs, < q. The group is libsecp256k1's; a point holds its secp256k1_pubkey. */

_Static_assert(sizeof(secp256k1_pubkey) == sizeof(((point *)0)->d), "a point holds a secp256k1_pubkey");

static const uint64_t curve_q[4] = {0xbfd25e8cd0364141u, 0xbaaedce6af48a03bu, 0xfffffffffffffffeu, 0xffffffffffffffffu};
static const uint64_t curve_p[4] = {0xfffffffefffffc2fu, 0xffffffffffffffffu, 0xffffffffffffffffu, 0xffffffffffffffffu};

/* 2^256 - q: 129 bits */
static const uint64_t curve_q_rest[3] = {0x402da1732fc9bebfu, 0x4551231950b75fc4u, 1};

static const uint64_t curve_q_half[4] = {0xdfe92f46681b20a0u, 0x5d576e7357a4501du, 0xffffffffffffffffu, 0x7fffffffffffffffu};

static secp256k1_context *curve_context = NULL;
static point curve_g;

/* ---- Scalars ---- */

/* r = wide mod q, wide of 8 limbs. */
static void scalar_reduce(scalar *r, const uint64_t *wide) {
    /* 2^256 = rest (mod q): fold the high half onto the low one, three times. */
    uint64_t first[8] = {0};  /* < 2^256 + 2^256 2^129 < 2^386 */
    uint64_t second[8] = {0}; /* < 2^256 + 2^130 2^129 < 2^260 */
    uint64_t third[8] = {0};  /* < 2^256 + 2^4 2^129 */
    mpn_sec_mul(first, wide + 4, 4, curve_q_rest, 3, NULL);
    (void)big_add(BIG_OF(first), BIG_OF(first), big_view(wide, 4));
    mpn_sec_mul(second, first + 4, 3, curve_q_rest, 3, NULL);
    (void)big_add(BIG_OF(second), BIG_OF(second), big_view(first, 4));
    mpn_sec_mul(third, curve_q_rest, 3, second + 4, 1, NULL);
    (void)big_add(BIG_OF(third), BIG_OF(third), big_view(second, 4));
    /* third < 2q, if only just: 2^256 + 2^133 < 2q. */
    uint64_t less[5];
    const uint64_t borrow = big_sub(BIG_OF(less), big_view(third, 5), BIG_OF(curve_q));
    big_select(BIG_OF(r->d), big_view(third, 4), big_view(less, 4), borrow);
}

INTERNAL void scalar_set_u64(scalar *r, uint64_t value) {
    *r = (scalar){{value, 0, 0, 0}};
}

INTERNAL void scalar_set_big(scalar *r, big a) {
    /* Horner over parts of 256 bits. */
    scalar sum = {{0}};
    for (size_t i = (a.n + 3) / 4; i-- > 0;) {
        uint64_t wide[8];
        for (size_t j = 0; j < 4; j++) {
            wide[j] = 4 * i + j < a.n ? a.d[4 * i + j] : 0;
            wide[4 + j] = sum.d[j];
        }
        scalar_reduce(&sum, wide);
    }
    *r = sum;
}

INTERNAL uint64_t scalar_set_bytes(scalar *r, const uint8_t *bytes32) {
    uint64_t value[4];
    const bool fits = big_from_bytes(BIG_OF(value), bytes32, 32);
    VERIFY_CHECK(fits); /* 32 bytes into 4 limbs */
    (void)fits;
    scalar_set_big(r, BIG_OF(value));
    return big_less(BIG_OF(value), BIG_OF(curve_q));
}

INTERNAL void scalar_random(scalar *r) {
    random_unit(BIG_OF(r->d), BIG_OF(curve_q));
}

INTERNAL void scalar_bytes(uint8_t *bytes32, const scalar *a) {
    const bool fits = big_to_bytes(bytes32, 32, BIG_OF(a->d));
    VERIFY_CHECK(fits); /* as above */
    (void)fits;
}

INTERNAL big scalar_big(const scalar *a) {
    return BIG_OF(a->d);
}

INTERNAL void scalar_add(scalar *r, const scalar *a, const scalar *b) {
    uint64_t sum[8] = {0};
    (void)big_add(BIG_OF(sum), BIG_OF(a->d), BIG_OF(b->d));
    scalar_reduce(r, sum);
}

INTERNAL void scalar_negate(scalar *r, const scalar *a) {
    const scalar zero = {{0}};
    scalar difference;
    const uint64_t is_zero = scalar_is_zero(a);
    (void)big_sub(BIG_OF(difference.d), BIG_OF(curve_q), BIG_OF(a->d));
    scalar_select(r, &zero, &difference, is_zero);
}

INTERNAL void scalar_sub(scalar *r, const scalar *a, const scalar *b) {
    scalar negative;
    scalar_negate(&negative, b);
    scalar_add(r, a, &negative);
}

INTERNAL void scalar_mul(scalar *r, const scalar *a, const scalar *b) {
    uint64_t product[8];
    mpn_sec_mul(product, a->d, 4, b->d, 4, NULL);
    scalar_reduce(r, product);
}

INTERNAL void scalar_inverse(scalar *r, const scalar *a) {
    /* a^(q-2): the exponent is public, the square-and-multiply pattern always the same. */
    scalar power = {{1, 0, 0, 0}};
    uint64_t exponent[4];
    const uint64_t two = 2;
    (void)big_sub(BIG_OF(exponent), BIG_OF(curve_q), big_view(&two, 1));
    for (size_t i = 256; i-- > 0;) {
        scalar_mul(&power, &power, &power);
        if (big_bit(BIG_OF(exponent), i) != 0) {
            scalar_mul(&power, &power, a);
        }
    }
    *r = power;
}

INTERNAL uint64_t scalar_is_zero(const scalar *a) {
    return big_is_zero(BIG_OF(a->d));
}

INTERNAL uint64_t scalar_equal(const scalar *a, const scalar *b) {
    return big_equal(BIG_OF(a->d), BIG_OF(b->d));
}

INTERNAL uint64_t scalar_is_high(const scalar *a) {
    return big_less(BIG_OF(curve_q_half), BIG_OF(a->d));
}

INTERNAL void scalar_select(scalar *r, const scalar *a, const scalar *b, uint64_t flag) {
    big_select(BIG_OF(r->d), BIG_OF(a->d), BIG_OF(b->d), flag);
}

INTERNAL void scalar_wipe(scalar *a) {
    secret_wipe(a, sizeof *a);
}

/* ---- The context ---- */

INTERNAL void curve_close(void) {
    if (curve_context != NULL) {
        secp256k1_context_preallocated_destroy(curve_context);
        secret_free(curve_context);
        curve_context = NULL;
    }
}

INTERNAL bool curve_open(void) {
    uint8_t seed32[32];
    VERIFY_CHECK(curve_context == NULL);
    void *room = secret_alloc(secp256k1_context_preallocated_size(SECP256K1_CONTEXT_NONE));
    if (room == NULL) {
        return false;
    }
    curve_context = secp256k1_context_preallocated_create(room, SECP256K1_CONTEXT_NONE);
    random_bytes(seed32, sizeof seed32);
    const int blinded = secp256k1_context_randomize(curve_context, seed32);
    secret_wipe(seed32, sizeof seed32);
    VERIFY_CHECK(blinded == 1); /* it has no way to fail */
    (void)blinded;
    const scalar one = {{1, 0, 0, 0}};
    point_mul_base(&curve_g, &one);
    return true;
}

INTERNAL big curve_order(void) {
    return BIG_OF(curve_q);
}

INTERNAL big curve_field(void) {
    return BIG_OF(curve_p);
}

INTERNAL uint64_t curve_b(void) {
    return 7;
}

INTERNAL const point *curve_generator(void) {
    return &curve_g;
}

/* ---- Points ---- */

static void point_load(secp256k1_pubkey *key, const point *a) {
    VERIFY_CHECK(!a->infinity);
    memcpy(key, a->d, sizeof *key);
}

static void point_store(point *r, const secp256k1_pubkey *key) {
    memcpy(r->d, key, sizeof *key);
    r->infinity = 0;
}

INTERNAL void point_set_infinity(point *r) {
    memset(r, 0, sizeof *r);
    r->infinity = 1;
}

INTERNAL bool point_set_xy(point *r, big x, big y) {
    uint8_t bytes[65] = {0x04};
    point_set_infinity(r);
    return big_to_bytes(bytes + 1, 32, x) && big_to_bytes(bytes + 33, 32, y) && point_parse(r, bytes, sizeof bytes);
}

INTERNAL bool point_parse(point *r, const uint8_t *bytes, size_t len) {
    secp256k1_pubkey key;
    point_set_infinity(r);
    /* The library also takes the hybrid form (06, 07), which is not ours. */
    const bool form = (len == 33 && (bytes[0] == 2 || bytes[0] == 3)) || (len == 65 && bytes[0] == 4);
    if (!form || secp256k1_ec_pubkey_parse(curve_context, &key, bytes, len) != 1) {
        return false;
    }
    point_store(r, &key);
    return true;
}

INTERNAL void point_xy(uint8_t *xy64, const point *a) {
    secp256k1_pubkey key;
    uint8_t bytes[65];
    size_t len = sizeof bytes;
    point_load(&key, a);
    (void)secp256k1_ec_pubkey_serialize(curve_context, bytes, &len, &key, SECP256K1_EC_UNCOMPRESSED);
    memcpy(xy64, bytes + 1, 64);
}

INTERNAL void point_compress(uint8_t *bytes33, const point *a) {
    secp256k1_pubkey key;
    size_t len = 33;
    point_load(&key, a);
    (void)secp256k1_ec_pubkey_serialize(curve_context, bytes33, &len, &key, SECP256K1_EC_COMPRESSED);
}

static void point_coordinate(big r, const point *a, size_t from) {
    uint8_t xy64[64];
    point_xy(xy64, a);
    const bool fits = big_from_bytes(r, xy64 + from, 32);
    VERIFY_CHECK(fits);
    (void)fits;
}

INTERNAL void point_x(big r, const point *a) {
    point_coordinate(r, a, 0);
}

INTERNAL void point_y(big r, const point *a) {
    point_coordinate(r, a, 32);
}

INTERNAL bool point_is_infinity(const point *a) {
    return a->infinity != 0;
}

INTERNAL bool point_equal(const point *a, const point *b) {
    uint8_t a_xy[64];
    uint8_t b_xy[64];
    if (a->infinity != 0 || b->infinity != 0) {
        return a->infinity == b->infinity;
    }
    point_xy(a_xy, a);
    point_xy(b_xy, b);
    return ct_equal(a_xy, b_xy, sizeof a_xy) == 1;
}

INTERNAL void point_negate(point *r, const point *a) {
    secp256k1_pubkey key;
    if (a->infinity != 0) {
        point_set_infinity(r);
        return;
    }
    point_load(&key, a);
    const int ok = secp256k1_ec_pubkey_negate(curve_context, &key);
    VERIFY_CHECK(ok == 1); /* it has no way to fail */
    (void)ok;
    point_store(r, &key);
}

INTERNAL void point_add(point *r, const point *a, const point *b) {
    const point *const terms[2] = {a, b};
    point_sum(r, terms, 2);
}

INTERNAL void point_sum(point *r, const point *const *a, size_t count) {
    /* The library adds any number of points that are not infinity, and refuses when their sum is. */
    enum { BATCH = 32 };
    secp256k1_pubkey keys[BATCH];
    const secp256k1_pubkey *refs[BATCH];
    secp256k1_pubkey sum;
    size_t used = 0;
    bool any = false;
    for (size_t i = 0; i <= count; i++) {
        if (i < count && a[i]->infinity == 0) {
            point_load(&keys[used], a[i]);
            used++;
        }
        if (used == BATCH || (i == count && used != 0)) {
            for (size_t j = 0; j < used; j++) {
                refs[j] = &keys[j];
            }
            any = secp256k1_ec_pubkey_combine(curve_context, &sum, refs, used) == 1;
            keys[0] = sum;
            used = any ? 1 : 0;
            if (i == count) {
                break;
            }
        }
    }
    if (any) {
        point_store(r, &sum);
    } else {
        point_set_infinity(r);
    }
}

INTERNAL void point_mul_base(point *r, const scalar *k) {
    secp256k1_pubkey key;
    uint8_t bytes32[32];
    scalar_bytes(bytes32, k);
    int ok = secp256k1_ec_pubkey_create(curve_context, &key, bytes32);
    DECLASSIFY(&ok, sizeof ok); /* whether k is zero */
    secret_wipe(bytes32, sizeof bytes32);
    if (ok == 1) {
        DECLASSIFY(&key, sizeof key); /* points are public */
        point_store(r, &key);
    } else {
        point_set_infinity(r);
    }
}

/* What the library's Diffie-Hellman hands out: here, the point itself. */
static int point_keep(uint8_t *xy64, const uint8_t *x32, const uint8_t *y32, void *unused) {
    (void)unused;
    memcpy(xy64, x32, 32);
    memcpy(xy64 + 32, y32, 32);
    return 1;
}

INTERNAL void point_mul(point *r, const point *a, const scalar *k) {
    secp256k1_pubkey key;
    uint8_t bytes32[32];
    uint8_t uncompressed[65] = {0x04};
    uint64_t zero = scalar_is_zero(k);
    DECLASSIFY(&zero, sizeof zero);
    if (a->infinity != 0 || zero != 0) {
        point_set_infinity(r);
        return;
    }
    point_load(&key, a);
    scalar_bytes(bytes32, k);
    int ok = secp256k1_ecdh(curve_context, uncompressed + 1, &key, bytes32, point_keep, NULL);
    secret_wipe(bytes32, sizeof bytes32);
    DECLASSIFY(&ok, sizeof ok); /* it fails for zero alone */
    VERIFY_CHECK(ok == 1);
    DECLASSIFY(uncompressed, sizeof uncompressed); /* points are public */
    const bool on_curve = point_parse(r, uncompressed, sizeof uncompressed);
    VERIFY_CHECK(on_curve);
    (void)ok;
    (void)on_curve;
}

INTERNAL void point_mul_var(point *r, const point *a, const scalar *k) {
    secp256k1_pubkey key;
    uint8_t bytes32[32];
    if (a->infinity != 0 || scalar_is_zero(k) != 0) {
        point_set_infinity(r);
        return;
    }
    point_load(&key, a);
    scalar_bytes(bytes32, k);
    const int ok = secp256k1_ec_pubkey_tweak_mul(curve_context, &key, bytes32);
    VERIFY_CHECK(ok == 1); /* it fails for zero alone */
    (void)ok;
    point_store(r, &key);
}

INTERNAL void point_add_base_var(point *r, const point *a, const scalar *k) {
    secp256k1_pubkey key;
    uint8_t bytes32[32];
    if (a->infinity != 0) {
        point_mul_base(r, k);
        return;
    }
    point_load(&key, a);
    scalar_bytes(bytes32, k);
    if (secp256k1_ec_pubkey_tweak_add(curve_context, &key, bytes32) == 1) {
        point_store(r, &key);
    } else {
        point_set_infinity(r);
    }
}

/* ---- ECDSA ---- */

INTERNAL bool ecdsa_verify(const uint8_t *signature64, const uint8_t *digest32, const point *key) {
    secp256k1_ecdsa_signature signature;
    secp256k1_pubkey public;
    if (key->infinity != 0 || secp256k1_ecdsa_signature_parse_compact(curve_context, &signature, signature64) != 1) {
        return false;
    }
    point_load(&public, key);
    (void)secp256k1_ecdsa_signature_normalize(curve_context, &signature, &signature);
    return secp256k1_ecdsa_verify(curve_context, &signature, digest32, &public) == 1;
}

INTERNAL bool ecdsa_recover(point *key, const uint8_t *signature64, uint8_t recovery_id, const uint8_t *digest32) {
    secp256k1_ecdsa_recoverable_signature signature;
    secp256k1_pubkey public;
    point_set_infinity(key);
    if (recovery_id > 3
        || secp256k1_ecdsa_recoverable_signature_parse_compact(curve_context, &signature, signature64, recovery_id) != 1
        || secp256k1_ecdsa_recover(curve_context, &public, &signature, digest32) != 1) {
        return false;
    }
    point_store(key, &public);
    return true;
}

#endif
