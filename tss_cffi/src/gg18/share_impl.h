#ifndef TSS_GG18_SHARE_IMPL_H
#define TSS_GG18_SHARE_IMPL_H

#include <openssl/evp.h>
#include <string.h>

#include "../primes.h"
#include "../protocol.h"
#include "../secret.h"
#include "../vss.h"
#include "ring.h"
#include "share.h"

enum { KEPT_HEADER_LEN = 6 };

static void writer_big(writer *w, big value) {
    uint8_t bytes[N_BYTES];
    const bool fits = big_to_bytes(bytes, 8 * value.n, value);
    VERIFY_CHECK(fits);
    (void)fits;
    writer_bytes(w, (span){bytes, 8 * value.n});
}

static void reader_big(reader *r, big value) {
    const span bytes = reader_take(r, 8 * value.n);
    r->ok = r->ok && big_from_bytes(value, bytes.at, bytes.len);
}

/* ---- Public parameters ---- */

/* Sizes, parity and ranges: what the arithmetic with them rests on. */
static const char *public_check_shape(const gg18_public *public_) {
    const big n = BIG_OF(public_->n);
    const big n_tilde = BIG_OF(public_->n_tilde);
    const big h1 = BIG_OF(public_->h1);
    const big h2 = BIG_OF(public_->h2);
    if (big_bits_var(n) != N_BITS || big_is_odd(n) == 0) {
        return "paillier_n: not odd of 2048 bits";
    }
    if (big_bits_var(n_tilde) != N_BITS || big_is_odd(n_tilde) == 0) {
        return "n_tilde: not odd of 2048 bits";
    }
    if (big_equal(h1, h2) == 1) {
        return "h1, h2: equal";
    }
    if (big_bits_var(h1) < 2 || big_less(h1, n_tilde) == 0) {
        return "h1: not a unit above 1 of n_tilde";
    }
    if (big_bits_var(h2) < 2 || big_less(h2, n_tilde) == 0) {
        return "h2: not a unit above 1 of n_tilde";
    }
    return NULL;
}

INTERNAL const char *public_check_var(const gg18_public *public_) {
    const big n_tilde = BIG_OF(public_->n_tilde);
    const char *problem = public_check_shape(public_);
    if (problem != NULL) {
        return problem;
    }
    if (!big_coprime_var(BIG_OF(public_->n), n_tilde)) {
        return "n_tilde: shares a factor with paillier_n";
    }
    if (!big_coprime_var(BIG_OF(public_->h1), n_tilde)) {
        return "h1: not a unit above 1 of n_tilde";
    }
    if (!big_coprime_var(BIG_OF(public_->h2), n_tilde)) {
        return "h2: not a unit above 1 of n_tilde";
    }
    return NULL;
}

static bool same_number(const uint64_t *a, const uint64_t *b) { return memcmp(a, b, N_BYTES) == 0; }

/* Nobody may use what another one uses: one of the two would know the other's secrets or, of the same owner, count twice. */
INTERNAL const char *public_compare(const gg18_public *a, const gg18_public *b) {
    if (same_number(a->h1, b->h1) || same_number(a->h1, b->h2) || same_number(a->h2, b->h1) || same_number(a->h2, b->h2)) {
        return "h1, h2: used by another party";
    }
    if (same_number(a->n, b->n) || same_number(a->n, b->n_tilde) || same_number(a->n_tilde, b->n)
        || same_number(a->n_tilde, b->n_tilde)) {
        return "paillier_n, n_tilde: used by another party";
    }
    return NULL;
}

static bool sha256(uint8_t *digest32, span bytes) {
    const bool ok = EVP_Digest(bytes.at, bytes.len, digest32, NULL, EVP_sha256(), NULL) == 1;
    DECLASSIFY(digest32, 32); /* of what cannot be guessed */
    return ok;
}

INTERNAL bool public_fingerprints(uint8_t *out32, const gg18_public *public_) {
    const big values[PUBLIC_FINGERPRINTS] = {
        BIG_OF(public_->n), BIG_OF(public_->n_tilde), BIG_OF(public_->h1), BIG_OF(public_->h2)};
    for (size_t i = 0; i < PUBLIC_FINGERPRINTS; i++) {
        uint8_t bytes[N_BYTES];
        if (!big_to_bytes(bytes, sizeof(bytes), values[i]) || !sha256(out32 + 32 * i, (span){bytes, sizeof(bytes)})) {
            return false;
        }
    }
    return true;
}

/* ---- Pre-parameters ---- */

/* Two different numbers of 1024 bits, 3 modulo 4 as safe primes are, whose product has 2048 bits. */
static bool primes_multiply(big product, big p, big q) {
    big_mul(product, p, q);
    DECLASSIFY(product.d, 8 * product.n); /* a modulus that is published */
    const uint64_t sized = big_bit(p, P_BITS - 1) & big_bit(q, P_BITS - 1) & big_bit(product, N_BITS - 1);
    const uint64_t blum = big_bit(p, 0) & big_bit(p, 1) & big_bit(q, 0) & big_bit(q, 1);
    return decided(sized & blum & (1 ^ big_equal(p, q)));
}

/* The same, and they are safe primes. */
static bool primes_check(big p, big q, big product, unsigned rounds) {
    return primes_multiply(product, p, q) && prime_is_safe(p, rounds) && prime_is_safe(q, rounds);
}

INTERNAL uint64_t primes_apart(big p, big q) {
    BIG(difference, P_BITS);
    BIG(swapped, P_BITS);
    const uint64_t borrow = big_sub(difference, p, q);
    (void)big_sub(swapped, q, p);
    big_select(difference, swapped, difference, borrow);
    return big_bit(difference, 1020) | big_bit(difference, 1021) | big_bit(difference, 1022) | big_bit(difference, 1023);
}

INTERNAL const char *prepared_complete(gg18_prepared *prepared, unsigned prime_rounds) {
    const gg18_private *own = &prepared->own;
    gg18_public *public_ = &prepared->public_;
    const big p = BIG_OF(own->p);
    const big q = BIG_OF(own->q);
    const big h1 = BIG_OF(public_->h1);
    const big h2 = BIG_OF(public_->h2);
    const big alpha = BIG_OF(own->alpha);
    if (!primes_check(p, q, BIG_OF(public_->n), prime_rounds)) {
        return "PaillierSK";
    }
    if (!decided(primes_apart(p, q))) {
        return "PaillierSK";
    }
    if (!primes_check(BIG_OF(own->ring_p), BIG_OF(own->ring_q), BIG_OF(public_->n_tilde), prime_rounds)) {
        return "NTildei";
    }
    /* h1 of order p'q', so a square and not 1; h2 = h1^alpha the same. */
    ring_private ring;
    BIG(order, N_BITS);
    BIG(inverse, N_BITS);
    BIG(power, N_BITS);
    if (!ring_private_init(&ring, own, h1)) {
        return "NTildei";
    }
    big_mul(order, modulus_value(&ring.n.p_half), modulus_value(&ring.n.q_half));
    if (big_bits_var(h1) < 2 || big_less(h1, BIG_OF(public_->n_tilde)) == 0) {
        return "H1i";
    }
    crt_exp(power, h1, order, &ring.n);
    if (!decided(big_equal_u64(power, 1))) {
        return "H1i";
    }
    if (!decided(big_less(alpha, order)) || !decided(big_inverse_odd(inverse, alpha, order))) {
        return "Alpha";
    }
    crt_exp(h2, h1, alpha, &ring.n);
    DECLASSIFY(h2.d, 8 * h2.n); /* published */
    return public_check_var(public_) == NULL ? NULL : "H2i";
}

static void prepared_put(writer *w, const gg18_private *own, const gg18_public *public_) {
    writer_big(w, BIG_OF(own->p));
    writer_big(w, BIG_OF(own->q));
    writer_big(w, BIG_OF(own->ring_p));
    writer_big(w, BIG_OF(own->ring_q));
    writer_big(w, BIG_OF(own->alpha));
    writer_big(w, BIG_OF(public_->h1));
}

static void prepared_get(reader *r, gg18_prepared *prepared) {
    reader_big(r, BIG_OF(prepared->own.p));
    reader_big(r, BIG_OF(prepared->own.q));
    reader_big(r, BIG_OF(prepared->own.ring_p));
    reader_big(r, BIG_OF(prepared->own.ring_q));
    reader_big(r, BIG_OF(prepared->own.alpha));
    reader_big(r, BIG_OF(prepared->public_.h1));
}

INTERNAL tss_secret *prepared_write(const gg18_prepared *prepared, uint8_t origin) {
    enum { LEN = KEPT_HEADER_LEN + 1 + 4 * P_BYTES + 2 * N_BYTES + 32 };
    tss_secret *secret = secret_bytes_new(LEN);
    if (secret == NULL) {
        return NULL;
    }
    writer w = writer_open(secret->data, LEN);
    kept_write(&w, KEPT_PREPARED, TSS_GG18_V2); /* both profiles want the same */
    writer_u8(&w, origin);
    prepared_put(&w, &prepared->own, &prepared->public_);
    uint8_t digest32[32];
    if (!sha256(digest32, (span){secret->data, w.len})) {
        secret_free(secret);
        return NULL;
    }
    writer_bytes(&w, (span){digest32, 32});
    VERIFY_CHECK(w.ok && w.len == LEN);
    return secret;
}

static const char no_memory[] = "memory";

INTERNAL tss_status read_status(const char *problem) {
    return problem == NULL ? TSS_OK : problem == no_memory ? TSS_MEMORY : TSS_REFUSED;
}

INTERNAL const char *prepared_read(gg18_prepared *prepared, span bytes) {
    reader r = reader_open(bytes);
    if (kept_read(&r, KEPT_PREPARED) != TSS_GG18_V2) {
        return "prepared: format";
    }
    /* Fixtures are known to others: only what the search made may become a key. */
    const uint8_t origin = reader_u8(&r);
#ifdef TSS_SEEDED
    const bool accepted = origin == PREPARED_SEARCHED || origin == PREPARED_FIXTURE;
#else
    const bool accepted = origin == PREPARED_SEARCHED;
#endif
    if (!accepted) {
        return "prepared: origin";
    }
    uint8_t digest32[32];
    prepared_get(&r, prepared);
    const span digest = reader_take(&r, 32);
    if (!reader_done(&r)) {
        return "prepared: damaged";
    }
    if (!sha256(digest32, (span){bytes.at, bytes.len - 32})) {
        return no_memory;
    }
    if (memcmp(digest.at, digest32, 32) != 0) {
        return "prepared: damaged";
    }
    return prepared_complete(prepared, 2);
}

/* ---- Shares ---- */

INTERNAL bool share_digest(uint8_t *digest32, const gg18_share *share) {
    static const char tag[] = "tss/1/gg18/result";
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(hash, tag, sizeof(tag)) == 1;
    uint8_t head[7 + 33];
    writer w = writer_open(head, sizeof(head));
    writer_u8(&w, share->v3 ? TSS_GG18_V3 : TSS_GG18_V2);
    writer_u16(&w, (uint16_t)share->threshold);
    writer_u32(&w, (uint32_t)share->n);
    uint8_t bytes33[33];
    point_compress(bytes33, &share->Y);
    writer_bytes(&w, (span){bytes33, 33});
    ok = ok && EVP_DigestUpdate(hash, head, w.len) == 1;
    for (size_t i = 0; ok && i < share->n; i++) {
        uint8_t member[4 + 33 + 4 * N_BYTES];
        w = writer_open(member, sizeof(member));
        writer_u32(&w, share->seats[i]);
        point_compress(bytes33, &share->X[i]);
        writer_bytes(&w, (span){bytes33, 33});
        writer_big(&w, BIG_OF(share->public_[i].n));
        writer_big(&w, BIG_OF(share->public_[i].n_tilde));
        writer_big(&w, BIG_OF(share->public_[i].h1));
        writer_big(&w, BIG_OF(share->public_[i].h2));
        ok = EVP_DigestUpdate(hash, member, w.len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(hash, digest32, NULL) == 1;
    EVP_MD_CTX_free(hash);
    return ok;
}

static void share_put(writer *w, const gg18_share *share) {
    uint8_t bytes33[33];
    uint8_t bytes32[32];
    kept_write(w, KEPT_SHARE, share->v3 ? TSS_GG18_V3 : TSS_GG18_V2);
    writer_u16(w, (uint16_t)share->threshold);
    writer_u16(w, (uint16_t)share->n);
    writer_u16(w, (uint16_t)share->own);
    scalar_bytes(bytes32, &share->x);
    writer_bytes(w, (span){bytes32, 32});
    prepared_put(w, &share->secret, &share->public_[share->own]);
    point_compress(bytes33, &share->Y);
    writer_bytes(w, (span){bytes33, 33});
    for (size_t i = 0; i < share->n; i++) {
        writer_u32(w, share->seats[i]);
        point_compress(bytes33, &share->X[i]);
        writer_bytes(w, (span){bytes33, 33});
        writer_big(w, BIG_OF(share->public_[i].n));
        writer_big(w, BIG_OF(share->public_[i].n_tilde));
        writer_big(w, BIG_OF(share->public_[i].h1));
        writer_big(w, BIG_OF(share->public_[i].h2));
    }
}

INTERNAL tss_secret *share_write(const gg18_share *share) {
    uint8_t digest32[32];
    writer measure = writer_measure();
    share_put(&measure, share);
    tss_secret *secret = secret_bytes_new(measure.len + sizeof(digest32));
    if (secret == NULL) {
        return NULL;
    }
    writer w = writer_open(secret->data, secret->len);
    share_put(&w, share);
    if (!sha256(digest32, (span){secret->data, w.len})) {
        secret_free(secret);
        return NULL;
    }
    /* Not against an attacker (the seal is): another party's modulus has nothing else to be checked against. */
    writer_bytes(&w, (span){digest32, sizeof(digest32)});
    VERIFY_CHECK(w.ok && w.len == secret->len);
    return secret;
}

static void reader_point(reader *r, point *p) {
    const span bytes = reader_take(r, 33);
    r->ok = r->ok && point_parse(p, bytes.at, bytes.len);
}

/* Derive N and N~, and check what costs next to nothing: that nothing of them was exchanged since they were proven. */
static const char *prepared_derive(gg18_prepared *prepared) {
    const gg18_private *own = &prepared->own;
    const big alpha = BIG_OF(own->alpha);
    BIG(order, N_BITS);
    BIG(p_half, P_BITS);
    BIG(q_half, P_BITS);
    if (!primes_multiply(BIG_OF(prepared->public_.n), BIG_OF(own->p), BIG_OF(own->q))
        || !decided(primes_apart(BIG_OF(own->p), BIG_OF(own->q)))) {
        return "PaillierSK";
    }
    if (!primes_multiply(BIG_OF(prepared->public_.n_tilde), BIG_OF(own->ring_p), BIG_OF(own->ring_q))) {
        return "NTildei";
    }
    big_shift_right(p_half, BIG_OF(own->ring_p), 1);
    big_shift_right(q_half, BIG_OF(own->ring_q), 1);
    big_mul(order, p_half, q_half);
    return decided(big_less(alpha, order) & (1 ^ big_is_zero(alpha))) ? NULL : "Alpha";
}

/* Seats, sizes, ranges, doubles and our own public share: what is left are relations whose check takes milliseconds. */
static const char *share_check_shape(const gg18_share *share) {
    for (size_t i = 0; i < share->n; i++) {
        if (share->seats[i] == 0 || share->seats[i] > TSS_SEAT_MAX || (i > 0 && share->seats[i] <= share->seats[i - 1])) {
            return "Ks";
        }
        if (public_check_shape(&share->public_[i]) != NULL) {
            return "PaillierPKs, NTildej, H1j or H2j";
        }
        for (size_t j = 0; j < i; j++) {
            if (public_compare(&share->public_[i], &share->public_[j]) != NULL) {
                return "PaillierPKs, NTildej, H1j or H2j: used twice";
            }
        }
    }
    point own;
    point_mul_base(&own, &share->x);
    return point_equal(&own, &share->X[share->own]) ? NULL : "Xi";
}

INTERNAL const char *share_read(gg18_share *share, span bytes, bool prove) {
    reader r = reader_open(bytes);
    gg18_prepared prepared;
    const uint8_t protocol = kept_read(&r, KEPT_SHARE);
    share->v3 = protocol == TSS_GG18_V3;
    share->threshold = reader_u16(&r);
    share->n = reader_u16(&r);
    share->own = reader_u16(&r);
    if (!r.ok || (protocol != TSS_GG18_V2 && protocol != TSS_GG18_V3) || share->n < 2 || share->n > TSS_PARTIES_MAX
        || share->threshold < 2 || share->threshold > share->n || share->own >= share->n) {
        return "format";
    }
    const span x = reader_take(&r, 32);
    if (!r.ok || !decided(scalar_set_bytes(&share->x, x.at)) || decided(scalar_is_zero(&share->x))) {
        return "Xi";
    }
    prepared_get(&r, &prepared);
    share->secret = prepared.own;
    const char *problem = !r.ok ? "format" : prove ? prepared_complete(&prepared, 1) : prepared_derive(&prepared);
    reader_point(&r, &share->Y);
    for (size_t i = 0; problem == NULL && i < share->n; i++) {
        share->seats[i] = reader_u32(&r);
        reader_point(&r, &share->X[i]);
        reader_big(&r, BIG_OF(share->public_[i].n));
        reader_big(&r, BIG_OF(share->public_[i].n_tilde));
        reader_big(&r, BIG_OF(share->public_[i].h1));
        reader_big(&r, BIG_OF(share->public_[i].h2));
    }
    uint8_t digest32[32];
    const span digest = reader_take(&r, sizeof(digest32));
    if (problem == NULL && !reader_done(&r)) {
        problem = "format";
    }
    if (problem == NULL && !sha256(digest32, (span){bytes.at, bytes.len - sizeof(digest32)})) {
        problem = no_memory;
    }
    if (problem == NULL && memcmp(digest.at, digest32, sizeof(digest32)) != 0) {
        problem = "format";
    }
    if (problem == NULL) {
        const gg18_public *own = &share->public_[share->own];
        if (!prove) {
            memcpy(prepared.public_.h2, own->h2, N_BYTES); /* h1^alpha: not computed again */
        }
        if (memcmp(&prepared.public_, own, sizeof(gg18_public)) != 0) {
            problem = "NTildej";
        }
    }
    return problem != NULL ? problem : prove ? share_check(share) : share_check_shape(share);
}

INTERNAL const char *share_check(const gg18_share *share) {
    const point *first[TSS_PARTIES_MAX];
    const char *problem = share_check_shape(share);
    if (problem != NULL) {
        return problem;
    }
    for (size_t i = 0; i < share->n; i++) {
        if (public_check_var(&share->public_[i]) != NULL) {
            return "PaillierPKs, NTildej, H1j or H2j";
        }
        first[i] = &share->X[i];
    }
    /* All X_j lie on one polynomial of degree t - 1 with Y at 0: the first t of them say which. */
    point value;
    for (size_t j = share->threshold; j < share->n; j++) {
        vss_interpolate_point_var(&value, first, share->seats, share->threshold, share->seats[j]);
        if (!point_equal(&value, &share->X[j])) {
            return "BigXj";
        }
    }
    /* Nor on one of a lower degree: then fewer than t would sign. */
    const size_t fewer = share->threshold - 1;
    vss_interpolate_point_var(&value, first, share->seats, fewer, share->seats[fewer]);
    if (point_equal(&value, &share->X[fewer])) {
        return "threshold";
    }
    vss_interpolate_point_var(&value, first, share->seats, share->threshold, 0);
    return point_equal(&value, &share->Y) ? NULL : "ECDSAPub";
}

#endif
