#include "test.h"

static void scalar_from(scalar *r, const mpz_t z) {
    uint64_t d[4];
    test_from_mpz(BIG_OF(d), z);
    scalar_set_big(r, BIG_OF(d));
}

static void any_scalar(scalar *r) {
    uint64_t d[4];
    test_residue(BIG_OF(d), curve_order());
    scalar_set_big(r, BIG_OF(d));
}

static void scalars_are_a_field(void *unused) {
    (void)unused;
    scalar a, b, r, s;
    mpz_t q, x, y, z;
    uint8_t bytes32[32];
    uint64_t wide[40];
    mpz_inits(q, x, y, z, NULL);
    test_to_mpz(q, curve_order());
    CHECK(mpz_probab_prime_p(q, 30) != 0);
    for (int i = 0; i < 5 * ROUNDS; i++) {
        any_scalar(&a);
        any_scalar(&b);
        test_to_mpz(x, scalar_big(&a));
        test_to_mpz(y, scalar_big(&b));
        CHECK(mpz_cmp(x, q) < 0);
        mpz_add(z, x, y);
        mpz_mod(z, z, q);
        scalar_add(&r, &a, &b);
        CHECK(test_same(scalar_big(&r), z));
        mpz_sub(z, x, y);
        mpz_mod(z, z, q);
        scalar_sub(&r, &a, &b);
        CHECK(test_same(scalar_big(&r), z));
        mpz_mul(z, x, y);
        mpz_mod(z, z, q);
        scalar_mul(&r, &a, &b);
        CHECK(test_same(scalar_big(&r), z));
        mpz_neg(z, x);
        mpz_mod(z, z, q);
        scalar_negate(&r, &a);
        CHECK(test_same(scalar_big(&r), z));
        if (i % 10 == 0) {
            scalar_inverse(&r, &a);
            if (mpz_invert(z, x, q) == 0) {
                mpz_set_ui(z, 0);
            }
            CHECK(test_same(scalar_big(&r), z));
        }
        CHECK(scalar_is_zero(&a) == (mpz_sgn(x) == 0) && scalar_equal(&a, &b) == (mpz_cmp(x, y) == 0));
        CHECK(scalar_equal(&a, &a) == 1);
        mpz_fdiv_q_2exp(z, q, 1);
        CHECK(scalar_is_high(&a) == (mpz_cmp(x, z) > 0));
        scalar_select(&r, &a, &b, 1);
        CHECK(scalar_equal(&r, &a) == 1);
        scalar_select(&r, &a, &b, 0);
        CHECK(scalar_equal(&r, &b) == 1);
        scalar_bytes(bytes32, &a);
        CHECK(scalar_set_bytes(&r, bytes32) == 1 && scalar_equal(&r, &a) == 1);
        s = a;
        scalar_mul(&s, &s, &s);
        scalar_mul(&r, &a, &a);
        CHECK(scalar_equal(&s, &r) == 1);

        const big any = {wide, 1 + test_below(40)};
        test_number(any);
        test_to_mpz(x, any);
        mpz_mod(z, x, q);
        scalar_set_big(&r, any);
        CHECK(test_same(scalar_big(&r), z));
        uint64_t four[4];
        test_number(BIG_OF(four));
        test_to_mpz(x, BIG_OF(four));
        CHECK(big_to_bytes(bytes32, 32, BIG_OF(four)));
        CHECK(scalar_set_bytes(&r, bytes32) == (mpz_cmp(x, q) < 0));
        mpz_mod(z, x, q);
        CHECK(test_same(scalar_big(&r), z));
    }
    /* The edges of the reduction: q - 1, q, q + 1, 2^256 - 1, and products of the largest. */
    for (long d = -2; d <= 2; d++) {
        mpz_set(x, q);
        if (d < 0) {
            mpz_sub_ui(x, x, (unsigned long)-d);
        } else {
            mpz_add_ui(x, x, (unsigned long)d);
        }
        scalar_from(&a, x);
        mpz_mod(z, x, q);
        CHECK(test_same(scalar_big(&a), z));
        mpz_mul(z, z, z);
        mpz_mod(z, z, q);
        scalar_mul(&r, &a, &a);
        CHECK(test_same(scalar_big(&r), z));
    }
    memset(wide, 0xff, sizeof wide);
    for (size_t n = 1; n <= 40; n++) {
        test_to_mpz(x, big_view(wide, n));
        mpz_mod(z, x, q);
        scalar_set_big(&r, big_view(wide, n));
        CHECK(test_same(scalar_big(&r), z));
    }
    scalar_set_u64(&a, 5);
    CHECK(big_equal_u64(scalar_big(&a), 5) == 1);
    scalar_random(&a);
    scalar_random(&b);
    CHECK(scalar_is_zero(&a) == 0 && scalar_equal(&a, &b) == 0);
    scalar_wipe(&a);
    CHECK(scalar_is_zero(&a) == 1);
    mpz_clears(q, x, y, z, NULL);
}

/* ---- Affine arithmetic written down from the textbook: the oracle for points ---- */

typedef struct affine {
    mpz_t x, y;
    int infinity;
} affine;

static mpz_t field;

static void affine_init(affine *a) {
    mpz_inits(a->x, a->y, NULL);
    a->infinity = 1;
}

static void affine_clear(affine *a) {
    mpz_clears(a->x, a->y, NULL);
}

static void affine_add(affine *r, const affine *a, const affine *b) {
    mpz_t slope, t, x, y;
    if (a->infinity != 0 || b->infinity != 0) {
        const affine *other = a->infinity != 0 ? b : a;
        mpz_set(r->x, other->x);
        mpz_set(r->y, other->y);
        r->infinity = other->infinity;
        return;
    }
    mpz_inits(slope, t, x, y, NULL);
    mpz_add(t, a->y, b->y);
    mpz_mod(t, t, field);
    if (mpz_cmp(a->x, b->x) == 0 && mpz_sgn(t) == 0) {
        r->infinity = 1;
    } else {
        if (mpz_cmp(a->x, b->x) == 0) {
            mpz_mul(slope, a->x, a->x);
            mpz_mul_ui(slope, slope, 3);
            mpz_mul_ui(t, a->y, 2);
        } else {
            mpz_sub(slope, b->y, a->y);
            mpz_sub(t, b->x, a->x);
        }
        mpz_invert(t, t, field);
        mpz_mul(slope, slope, t);
        mpz_mul(x, slope, slope);
        mpz_sub(x, x, a->x);
        mpz_sub(x, x, b->x);
        mpz_mod(x, x, field);
        mpz_sub(y, a->x, x);
        mpz_mul(y, y, slope);
        mpz_sub(y, y, a->y);
        mpz_mod(y, y, field);
        mpz_set(r->x, x);
        mpz_set(r->y, y);
        r->infinity = 0;
    }
    mpz_clears(slope, t, x, y, NULL);
}

static void affine_of(affine *r, const point *a) {
    uint64_t x[4], y[4];
    r->infinity = point_is_infinity(a);
    if (r->infinity == 0) {
        point_x(BIG_OF(x), a);
        point_y(BIG_OF(y), a);
        test_to_mpz(r->x, BIG_OF(x));
        test_to_mpz(r->y, BIG_OF(y));
    }
}

static int affine_is(const affine *a, const point *b) {
    affine other;
    affine_init(&other);
    affine_of(&other, b);
    const int same = other.infinity == a->infinity
        && (a->infinity != 0 || (mpz_cmp(other.x, a->x) == 0 && mpz_cmp(other.y, a->y) == 0));
    affine_clear(&other);
    return same;
}

static void affine_mul(affine *r, const affine *a, const scalar *k) {
    affine sum;
    affine_init(&sum);
    for (size_t i = 256; i-- > 0;) {
        affine_add(&sum, &sum, &sum);
        if (big_bit(scalar_big(k), i) != 0) {
            affine_add(&sum, &sum, a);
        }
    }
    mpz_set(r->x, sum.x);
    mpz_set(r->y, sum.y);
    r->infinity = sum.infinity;
    affine_clear(&sum);
}

static void points_are_a_group(void *unused) {
    (void)unused;
    affine g, a, b, r;
    scalar k, l;
    point p, s, t;
    mpz_init(field);
    test_to_mpz(field, curve_field());
    affine_init(&g);
    affine_init(&a);
    affine_init(&b);
    affine_init(&r);
    affine_of(&g, curve_generator());
    mpz_set_str(r.x, "79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798", 16);
    mpz_set_str(r.y, "483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8", 16);
    CHECK(mpz_cmp(g.x, r.x) == 0 && mpz_cmp(g.y, r.y) == 0);
    CHECK(curve_b() == 7);
    for (int i = 0; i < ROUNDS / 5; i++) {
        any_scalar(&k);
        any_scalar(&l);
        affine_mul(&a, &g, &k);
        point_mul_base(&p, &k);
        CHECK(affine_is(&a, &p));
        affine_mul(&b, &a, &l);
        point_mul(&s, &p, &l);
        CHECK(affine_is(&b, &s));
        point_mul_var(&s, &p, &l);
        CHECK(affine_is(&b, &s));
        affine_add(&r, &a, &b);
        point_add(&t, &p, &s);
        CHECK(affine_is(&r, &t));
        point_add(&p, &p, &s);
        CHECK(point_equal(&p, &t));
        affine_mul(&b, &g, &l);
        affine_add(&r, &r, &b);
        point_add_base_var(&t, &t, &l);
        CHECK(affine_is(&r, &t));
        point_negate(&s, &t);
        point_add(&p, &s, &t);
        CHECK(point_is_infinity(&p));
        CHECK(point_equal(&s, &t) == point_is_infinity(&t));
        point_add(&p, &t, &t);
        affine_add(&r, &r, &r);
        CHECK(affine_is(&r, &p));
    }
    /* Infinity wherever it can stand. */
    scalar zero, one, minus;
    scalar_set_u64(&zero, 0);
    scalar_set_u64(&one, 1);
    scalar_negate(&minus, &one);
    const point *G = curve_generator();
    point_set_infinity(&p);
    point_mul_base(&s, &zero);
    CHECK(point_is_infinity(&s) && point_equal(&s, &p) && !point_equal(&s, G) && !point_equal(G, &s));
    point_mul(&s, G, &zero);
    CHECK(point_is_infinity(&s));
    point_mul_var(&s, G, &zero);
    CHECK(point_is_infinity(&s));
    point_mul(&s, &p, &one);
    CHECK(point_is_infinity(&s));
    point_mul_var(&s, &p, &one);
    CHECK(point_is_infinity(&s));
    point_negate(&s, &p);
    CHECK(point_is_infinity(&s));
    point_add(&s, &p, &p);
    CHECK(point_is_infinity(&s));
    point_add(&s, &p, G);
    CHECK(point_equal(&s, G));
    point_add(&s, G, &p);
    CHECK(point_equal(&s, G));
    point_add_base_var(&s, &p, &one);
    CHECK(point_equal(&s, G));
    point_add_base_var(&s, G, &minus);
    CHECK(point_is_infinity(&s));
    point_add_base_var(&s, G, &zero);
    CHECK(point_equal(&s, G));
    affine_clear(&g);
    affine_clear(&a);
    affine_clear(&b);
    affine_clear(&r);
    mpz_clear(field);
}

static void sums_of_any_length(void *unused) {
    (void)unused;
    enum { MOST = 100 };
    point many[MOST], sum, expected;
    const point *refs[MOST];
    scalar k, total;
    for (size_t count = 0; count <= MOST; count += count < 5 ? 1 : 1 + test_below(13)) {
        scalar_set_u64(&total, 0);
        for (size_t i = 0; i < count; i++) {
            any_scalar(&k);
            if (i % 32 == 31 || i + 1 == count) {
                scalar_negate(&k, &total); /* the batches themselves sum to infinity */
            }
            scalar_add(&total, &total, &k);
            point_mul_base(&many[i], &k);
            refs[i] = &many[i];
        }
        point_sum(&sum, refs, count);
        CHECK(point_is_infinity(&sum));
        if (count > 2) {
            point_sum(&sum, refs, count - 1);
            point_negate(&expected, &many[count - 1]);
            CHECK(point_equal(&sum, &expected));
        }
    }
}

static void only_canonical_points_are_taken(void *unused) {
    (void)unused;
    uint8_t bytes[66], back[65];
    uint64_t x[5] = {0}, y[5] = {0}, high[5];
    point p, r;
    scalar k;
    for (int i = 0; i < ROUNDS / 5; i++) {
        scalar_random(&k);
        point_mul_base(&p, &k);
        bytes[0] = 4;
        point_xy(bytes + 1, &p);
        CHECK(point_parse(&r, bytes, 65) && point_equal(&r, &p));
        point_compress(back, &p);
        CHECK(back[0] == 2 + (bytes[64] & 1) && memcmp(back + 1, bytes + 1, 32) == 0);
        CHECK(point_parse(&r, back, 33) && point_equal(&r, &p));
        point_x(BIG_OF(x), &p);
        point_y(BIG_OF(y), &p);
        CHECK(point_set_xy(&r, BIG_OF(x), BIG_OF(y)) && point_equal(&r, &p));

        CHECK(!point_parse(&r, bytes, 64) && point_is_infinity(&r));
        CHECK(!point_parse(&r, bytes, 66) && !point_parse(&r, back, 32) && !point_parse(&r, back, 0));
        bytes[0] = (uint8_t)(6 + (bytes[64] & 1));
        CHECK(!point_parse(&r, bytes, 65)); /* hybrid */
        bytes[0] = 0;
        CHECK(!point_parse(&r, bytes, 1) && !point_parse(&r, bytes, 65));
        y[0] ^= 1;
        CHECK(!point_set_xy(&r, BIG_OF(x), BIG_OF(y)) && point_is_infinity(&r));
        y[0] ^= 1;
        x[4] = 1;
        CHECK(!point_set_xy(&r, BIG_OF(x), BIG_OF(y)));
        x[4] = 0;
        y[4] = 1;
        CHECK(!point_set_xy(&r, BIG_OF(x), BIG_OF(y)));
        y[4] = 0;
    }
    /* x + p and y + p, where they fit into 32 bytes: x = 1 has a point. */
    back[0] = 2;
    memset(back + 1, 0, 31);
    back[32] = 1;
    CHECK(point_parse(&p, back, 33));
    point_x(BIG_OF(x), &p);
    point_y(BIG_OF(y), &p);
    big_set(BIG_OF(high), curve_field());
    (void)big_add(BIG_OF(high), BIG_OF(high), BIG_OF(x));
    CHECK(high[4] == 0 && !point_set_xy(&r, BIG_OF(high), BIG_OF(y)));
    CHECK(big_to_bytes(back + 1, 32, BIG_OF(high)) && !point_parse(&r, back, 33));
    big_zero(BIG_OF(x));
    big_zero(BIG_OF(y));
    CHECK(!point_set_xy(&r, BIG_OF(x), BIG_OF(y))); /* (0, 0), as others write infinity */
    big_set(BIG_OF(x), curve_field());
    CHECK(!point_set_xy(&r, BIG_OF(x), BIG_OF(y)));
}

static void signatures_verify_and_give_their_key_back(void *unused) {
    (void)unused;
    uint8_t secret32[32], digest32[32], signature64[64], changed[64];
    scalar k, s;
    point key, recovered;
    secp256k1_ecdsa_recoverable_signature signature;
    int recovery_id;
    for (int i = 0; i < ROUNDS / 10; i++) {
        scalar_random(&k);
        scalar_bytes(secret32, &k);
        point_mul_base(&key, &k);
        random_bytes(digest32, sizeof digest32);
        CHECK(secp256k1_ecdsa_sign_recoverable(curve_context, &signature, digest32, secret32, NULL, NULL) == 1);
        CHECK(secp256k1_ecdsa_recoverable_signature_serialize_compact(
                  curve_context, signature64, &recovery_id, &signature)
              == 1);
        CHECK(ecdsa_verify(signature64, digest32, &key));
        CHECK(ecdsa_recover(&recovered, signature64, (uint8_t)recovery_id, digest32) && point_equal(&recovered, &key));
        CHECK(!ecdsa_recover(&recovered, signature64, (uint8_t)(recovery_id ^ 1), digest32)
              || !point_equal(&recovered, &key));
        /* The other s is good too. */
        memcpy(changed, signature64, 64);
        CHECK(scalar_set_bytes(&s, changed + 32) == 1);
        scalar_negate(&s, &s);
        CHECK(scalar_is_high(&s) == 1);
        scalar_bytes(changed + 32, &s);
        CHECK(ecdsa_verify(changed, digest32, &key));
        changed[test_below(64)] ^= 1;
        CHECK(!ecdsa_verify(changed, digest32, &key));
        digest32[31] ^= 1;
        CHECK(!ecdsa_verify(signature64, digest32, &key));
    }
    CHECK(!ecdsa_recover(&recovered, signature64, 4, digest32) && point_is_infinity(&recovered));
    memset(changed, 0xff, sizeof changed);
    CHECK(!ecdsa_recover(&recovered, changed, 0, digest32) && !ecdsa_verify(changed, digest32, &key));
    memset(changed, 0, sizeof changed);
    CHECK(!ecdsa_recover(&recovered, changed, 0, digest32) && !ecdsa_verify(changed, digest32, &key));
    point_set_infinity(&key);
    CHECK(!ecdsa_verify(signature64, digest32, &key));
}

static void no_room_no_curve(void) {
    CHECK(secret_open(4096));
    void *block = secret_alloc(3900);
    CHECK(block != NULL && !curve_open());
    curve_close();
    secret_free(block);
    CHECK(secret_close());
}

int main(void) {
    no_room_no_curve();
    test_begin(1 << 20);
    test_secretly(scalars_are_a_field);
    test_secretly(points_are_a_group);
    test_secretly(sums_of_any_length);
    test_secretly(only_canonical_points_are_taken);
    test_secretly(signatures_verify_and_give_their_key_back);
    test_end();
    return 0;
}
