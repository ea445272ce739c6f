#ifndef TSS_GG18_FOREIGN_IMPL_H
#define TSS_GG18_FOREIGN_IMPL_H

#include <string.h>

#include "../secret.h"
#include "foreign.h"
#include "ring.h"

/* ---- JSON, as much of it as save data needs: a value is a span, members and elements are looked up in it ---- */

enum { JSON_DEPTH_MAX = 8 };

static void json_space(span *left) {
    while (left->len != 0 && (*left->at == ' ' || *left->at == '\t' || *left->at == '\n' || *left->at == '\r')) {
        left->at++;
        left->len--;
    }
}

static bool json_take(span *left, char c) {
    json_space(left);
    if (left->len == 0 || *left->at != (uint8_t)c) {
        return false;
    }
    left->at++;
    left->len--;
    return true;
}

static bool json_string(span *left, span *text) {
    if (!json_take(left, '"')) {
        return false;
    }
    text->at = left->at;
    while (left->len != 0 && *left->at != '"') {
        const size_t step = *left->at == '\\' ? 2 : 1;
        if (step > left->len) {
            return false;
        }
        left->at += step;
        left->len -= step;
    }
    text->len = (size_t)(left->at - text->at);
    return json_take(left, '"');
}

static bool json_is_word(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
}

/* The next value, whole. Structure is checked, words (numbers, null, true) by who uses them. */
static bool json_value(span *left, span *value, unsigned depth) {
    json_space(left);
    const uint8_t *start = left->at;
    span ignored;
    bool ok = left->len != 0 && depth < JSON_DEPTH_MAX;
    if (ok && *left->at == '"') {
        ok = json_string(left, &ignored);
    } else if (ok && (*left->at == '{' || *left->at == '[')) {
        const bool object = *left->at == '{';
        const char close = object ? '}' : ']';
        (void)json_take(left, object ? '{' : '[');
        if (!json_take(left, close)) {
            do {
                ok = (!object || (json_string(left, &ignored) && json_take(left, ':'))) && json_value(left, &ignored, depth + 1);
            } while (ok && json_take(left, ','));
            ok = ok && json_take(left, close);
        }
    } else if (ok) {
        while (left->len != 0 && json_is_word(*left->at)) {
            left->at++;
            left->len--;
        }
        ok = left->at != start;
    }
    *value = (span){start, ok ? (size_t)(left->at - start) : 0};
    return ok;
}

/* One whole document. */
static bool json_document(span text, span *value) {
    const bool ok = json_value(&text, value, 0);
    json_space(&text);
    return ok && text.len == 0;
}

/* A member of an object that json_value has seen; a name that occurs twice is none. */
static bool json_member(span object, const char *name, span *value) {
    const span wanted = {(const uint8_t *)name, strlen(name)};
    size_t found = 0;
    span key;
    span this_value;
    if (!json_take(&object, '{') || json_take(&object, '}')) {
        return false;
    }
    do {
        if (!json_string(&object, &key) || !json_take(&object, ':') || !json_value(&object, &this_value, 1)) {
            return false;
        }
        if (span_equal_var(key, wanted)) {
            *value = this_value;
            found++;
        }
    } while (json_take(&object, ','));
    return found == 1;
}

/* The elements of an array; false: it is none, or has more than max. */
static bool json_elements(span array, span *elements, size_t *count, size_t max) {
    *count = 0;
    if (!json_take(&array, '[')) {
        return false;
    }
    if (json_take(&array, ']')) {
        return true;
    }
    do {
        if (*count == max || !json_value(&array, &elements[(*count)++], 1)) {
            return false;
        }
    } while (json_take(&array, ','));
    return true;
}

/* ---- Decimal integers ---- */

enum { DECIMAL_DIGITS = 18 }; /* that many fit into a limb */

static bool decimal_read(big r, span digits) {
    uint64_t wide_d[N_LIMBS + 1];
    const big wide = {wide_d, r.n + 1};
    BIG(scale, 64);
    BIG(chunk, 64);
    big_zero(r);
    bool ok = digits.len != 0 && r.n <= N_LIMBS;
    while (ok && digits.len != 0) {
        const size_t count = digits.len % DECIMAL_DIGITS != 0 ? digits.len % DECIMAL_DIGITS : DECIMAL_DIGITS;
        uint64_t power = 1;
        uint64_t value = 0;
        for (size_t i = 0; i < count; i++) {
            ok = ok && digits.at[i] >= '0' && digits.at[i] <= '9';
            value = 10 * value + (uint64_t)(digits.at[i] - '0');
            power *= 10;
        }
        digits.at += count;
        digits.len -= count;
        big_set_u64(scale, power);
        big_set_u64(chunk, value);
        ok = ok && big_mul_add(wide, r, scale, chunk) == 0 && wide.d[r.n] == 0;
        big_set(r, big_low(wide, ok ? r.n : 0));
    }
    return ok;
}

static bool member_decimal(big r, span object, const char *name) {
    span value;
    return json_member(object, name, &value) && decimal_read(r, value);
}

static bool element_decimals(uint64_t *first, size_t stride, size_t limbs, span object, const char *name, size_t count) {
    span array;
    span elements[TSS_PARTIES_MAX];
    size_t found;
    bool ok = json_member(object, name, &array) && json_elements(array, elements, &found, TSS_PARTIES_MAX) && found == count;
    for (size_t i = 0; ok && i < count; i++) {
        ok = decimal_read((big){first + i * stride, limbs}, elements[i]);
    }
    return ok;
}

static bool point_decimal(point *p, span value) {
    span array;
    span coordinates[2];
    span curve;
    size_t count;
    BIG(x, Q_BITS);
    BIG(y, Q_BITS);
    /* Files without a curve mean this one, as tss-lib reads them. */
    if (json_member(value, "Curve", &curve) && !span_equal_var(curve, (span){(const uint8_t *)"\"secp256k1\"", 11})) {
        return false;
    }
    return json_member(value, "Coords", &array) && json_elements(array, coordinates, &count, 2) && count == 2
        && decimal_read(x, coordinates[0]) && decimal_read(y, coordinates[1]) && point_set_xy(p, x, y);
}

/* ---- Save data ---- */

/* r = 2 p' + 1, the safe prime of a Germain prime. */
static void safe_prime_of(big r, big germain) {
    BIG(one, 64);
    big_set_u64(one, 1);
    big_shift_left(r, germain, 1);
    (void)big_add(r, r, one);
}

static const char *foreign_prepared(gg18_prepared *prepared, span json) {
    span paillier;
    gg18_public stated;
    BIG(germain, P_BITS);
    BIG(alpha, N_BITS);
    BIG(beta, N_BITS);
    BIG(value, N_BITS);
    BIG(phi, N_BITS);
    BIG(one, 64);
    ring_private ring;
    if (!json_member(json, "PaillierSK", &paillier) || !member_decimal(BIG_OF(stated.n), paillier, "N")
        || !member_decimal(BIG_OF(prepared->own.p), paillier, "P") || !member_decimal(BIG_OF(prepared->own.q), paillier, "Q")) {
        return "PaillierSK";
    }
    if (!member_decimal(BIG_OF(stated.n_tilde), json, "NTildei")) {
        return "NTildei";
    }
    if (!member_decimal(BIG_OF(prepared->public_.h1), json, "H1i")) {
        return "H1i";
    }
    if (!member_decimal(BIG_OF(stated.h2), json, "H2i")) {
        return "H2i";
    }
    if (!member_decimal(alpha, json, "Alpha")) {
        return "Alpha";
    }
    if (!member_decimal(beta, json, "Beta")) {
        return "Beta";
    }
    /* The doubling must lose no bit, and what follows computes modulo these numbers, which takes odd ones. */
    if (!member_decimal(germain, json, "P") || big_bit(germain, P_BITS - 1) == 1 || big_is_odd(germain) == 0) {
        return "P";
    }
    safe_prime_of(BIG_OF(prepared->own.ring_p), germain);
    if (!member_decimal(germain, json, "Q") || big_bit(germain, P_BITS - 1) == 1 || big_is_odd(germain) == 0) {
        return "Q";
    }
    safe_prime_of(BIG_OF(prepared->own.ring_q), germain);
    /* tss-lib draws alpha below N~; only its residue modulo p'q' counts. */
    if (big_bit(BIG_OF(prepared->own.ring_p), P_BITS - 1) == 0
        || big_bit(BIG_OF(prepared->own.ring_q), P_BITS - 1) == 0
        || !ring_private_init(&ring, &prepared->own, BIG_OF(prepared->public_.h1))) {
        return "NTildei";
    }
    modulus order;
    BIG(order_value, N_BITS);
    big_mul(order_value, modulus_value(&ring.n.p_half), modulus_value(&ring.n.q_half));
    modulus_init(&order, order_value);
    mod_reduce(BIG_OF(prepared->own.alpha), alpha, &order);
    mod_reduce(beta, beta, &order);
    mod_mul(value, BIG_OF(prepared->own.alpha), beta, &order);
    if (big_equal_u64(value, 1) == 0) {
        return "Beta";
    }
    const char *problem = prepared_complete(prepared, 8);
    if (problem != NULL) {
        return problem;
    }
    if (big_equal(BIG_OF(stated.n), BIG_OF(prepared->public_.n)) == 0) {
        return "PaillierSK";
    }
    if (big_equal(BIG_OF(stated.n_tilde), BIG_OF(prepared->public_.n_tilde)) == 0) {
        return "NTildei";
    }
    if (big_equal(BIG_OF(stated.h2), BIG_OF(prepared->public_.h2)) == 0) {
        return "H2i";
    }
    big_set_u64(one, 1);
    (void)big_sub(phi, BIG_OF(stated.n), BIG_OF(prepared->own.p));
    (void)big_sub(phi, phi, BIG_OF(prepared->own.q));
    (void)big_add(phi, phi, one);
    if (!member_decimal(value, paillier, "PhiN") || big_equal(value, phi) == 0) {
        return "PaillierSK";
    }
    big_shift_right(phi, phi, 1); /* lcm of p-1 and q-1, for safe primes */
    if (!member_decimal(value, paillier, "LambdaN") || big_equal(value, phi) == 0) {
        return "PaillierSK";
    }
    return NULL;
}

static const char *foreign_committee(gg18_share *share, span json) {
    BIG(value, Q_BITS);
    uint64_t keys[TSS_PARTIES_MAX];
    span array;
    span elements[TSS_PARTIES_MAX];
    size_t count;
    if (!json_member(json, "Ks", &array) || !json_elements(array, elements, &share->n, TSS_PARTIES_MAX) || share->n < 2
        || !element_decimals(keys, 1, 1, json, "Ks", share->n)) {
        return "Ks";
    }
    for (size_t i = 0; i < share->n; i++) {
        if (keys[i] == 0 || keys[i] > TSS_SEAT_MAX) {
            return "Ks";
        }
        share->seats[i] = (uint32_t)keys[i];
    }
    if (!member_decimal(big_low(value, 1), json, "ShareID")) {
        return "ShareID";
    }
    for (share->own = 0; share->own < share->n && share->seats[share->own] != value.d[0]; share->own++) {
    }
    if (share->own == share->n) {
        return "ShareID";
    }
    const size_t stride = sizeof(gg18_public) / sizeof(uint64_t);
    if (!element_decimals(share->public_[0].n_tilde, stride, N_LIMBS, json, "NTildej", share->n)) {
        return "NTildej";
    }
    if (!element_decimals(share->public_[0].h1, stride, N_LIMBS, json, "H1j", share->n)) {
        return "H1j";
    }
    if (!element_decimals(share->public_[0].h2, stride, N_LIMBS, json, "H2j", share->n)) {
        return "H2j";
    }
    bool ok = json_member(json, "PaillierPKs", &array) && json_elements(array, elements, &count, TSS_PARTIES_MAX)
        && count == share->n;
    for (size_t i = 0; ok && i < share->n; i++) {
        ok = member_decimal(BIG_OF(share->public_[i].n), elements[i], "N");
    }
    if (!ok) {
        return "PaillierPKs";
    }
    ok = json_member(json, "BigXj", &array) && json_elements(array, elements, &count, TSS_PARTIES_MAX) && count == share->n;
    for (size_t i = 0; ok && i < share->n; i++) {
        ok = point_decimal(&share->X[i], elements[i]);
    }
    if (!ok) {
        return "BigXj";
    }
    return json_member(json, "ECDSAPub", &array) && point_decimal(&share->Y, array) ? NULL : "ECDSAPub";
}

INTERNAL const char *foreign_read(gg18_share *share, bool v3, size_t threshold, span json) {
    span document;
    gg18_prepared prepared;
    BIG(x, N_BITS);
    if (!json_document(json, &document)) {
        return "JSON";
    }
    const char *problem = foreign_prepared(&prepared, document);
    if (problem == NULL) {
        problem = foreign_committee(share, document);
    }
    if (problem != NULL) {
        return problem;
    }
    share->v3 = v3;
    share->threshold = threshold;
    share->secret = prepared.own;
    if (threshold > share->n) {
        return "threshold";
    }
    if (memcmp(&prepared.public_, &share->public_[share->own], sizeof(gg18_public)) != 0) {
        return "NTildej";
    }
    /* After a resharing tss-lib writes a sum that it did not reduce. */
    if (!member_decimal(x, document, "Xi")) {
        return "Xi";
    }
    scalar_set_big(&share->x, x);
    return share_check(share);
}

#ifdef TSS_SEEDED

INTERNAL const char *foreign_read_prepared(gg18_prepared *prepared, span json) {
    span document;
    return json_document(json, &document) ? foreign_prepared(prepared, document) : "JSON";
}

static void text_write(writer *w, const char *text) { writer_bytes(w, (span){(const uint8_t *)text, strlen(text)}); }

static void decimal_write(writer *w, big value) {
    enum { DIGITS_MAX = 640 };
    uint8_t digits[DIGITS_MAX];
    uint64_t left_d[N_LIMBS];
    const big left = {left_d, value.n};
    BIG(ten, 64);
    BIG(digit, 64);
    size_t at = DIGITS_MAX;
    big_set_u64(ten, 10);
    big_set(left, value);
    do {
        uint64_t quotient_d[N_LIMBS];
        const big quotient = {quotient_d, left.n};
        big_divide(quotient, digit, left, ten);
        big_set(left, quotient);
        digits[--at] = (uint8_t)('0' + digit.d[0]);
    } while (big_is_zero(left) == 0);
    writer_bytes(w, (span){digits + at, DIGITS_MAX - at});
}

static void member_write(writer *w, const char *name, big value) {
    text_write(w, "\"");
    text_write(w, name);
    text_write(w, "\":");
    decimal_write(w, value);
    text_write(w, ",");
}

static void point_write(writer *w, const point *p) {
    BIG(x, Q_BITS);
    BIG(y, Q_BITS);
    point_x(x, p);
    point_y(y, p);
    text_write(w, "{\"Curve\":\"secp256k1\",\"Coords\":[");
    decimal_write(w, x);
    text_write(w, ",");
    decimal_write(w, y);
    text_write(w, "]}");
}

static void array_write(writer *w, const char *name, const gg18_share *share, const uint64_t *first) {
    const size_t stride = sizeof(gg18_public) / sizeof(uint64_t);
    text_write(w, "\"");
    text_write(w, name);
    text_write(w, "\":[");
    for (size_t i = 0; i < share->n; i++) {
        text_write(w, i == 0 ? "" : ",");
        decimal_write(w, big_view(first + i * stride, N_LIMBS));
    }
    text_write(w, "],");
}

static void foreign_put(writer *w, const gg18_share *share) {
    const gg18_public *own = &share->public_[share->own];
    ring_private ring;
    BIG(phi, N_BITS);
    BIG(lambda, N_BITS);
    BIG(order, N_BITS);
    BIG(beta, N_BITS);
    BIG(one, 64);
    BIG(small, 64);
    big_set_u64(one, 1);
    (void)big_sub(phi, BIG_OF(own->n), BIG_OF(share->secret.p));
    (void)big_sub(phi, phi, BIG_OF(share->secret.q));
    (void)big_add(phi, phi, one);
    big_shift_right(lambda, phi, 1);
    const bool coprime = ring_private_init(&ring, &share->secret, BIG_OF(own->h1));
    VERIFY_CHECK(coprime);
    (void)coprime;
    big_mul(order, modulus_value(&ring.n.p_half), modulus_value(&ring.n.q_half));
    (void)big_inverse_odd(beta, BIG_OF(share->secret.alpha), order);

    text_write(w, "{\"PaillierSK\":{");
    member_write(w, "N", BIG_OF(own->n));
    member_write(w, "LambdaN", lambda);
    member_write(w, "PhiN", phi);
    member_write(w, "P", BIG_OF(share->secret.p));
    text_write(w, "\"Q\":");
    decimal_write(w, BIG_OF(share->secret.q));
    text_write(w, "},");
    member_write(w, "NTildei", BIG_OF(own->n_tilde));
    member_write(w, "H1i", BIG_OF(own->h1));
    member_write(w, "H2i", BIG_OF(own->h2));
    member_write(w, "Alpha", BIG_OF(share->secret.alpha));
    member_write(w, "Beta", beta);
    member_write(w, "P", modulus_value(&ring.n.p_half));
    member_write(w, "Q", modulus_value(&ring.n.q_half));
    member_write(w, "Xi", scalar_big(&share->x));
    big_set_u64(small, share->seats[share->own]);
    member_write(w, "ShareID", small);
    text_write(w, "\"Ks\":[");
    for (size_t i = 0; i < share->n; i++) {
        text_write(w, i == 0 ? "" : ",");
        big_set_u64(small, share->seats[i]);
        decimal_write(w, small);
    }
    text_write(w, "],");
    array_write(w, "NTildej", share, share->public_[0].n_tilde);
    array_write(w, "H1j", share, share->public_[0].h1);
    array_write(w, "H2j", share, share->public_[0].h2);
    text_write(w, "\"BigXj\":[");
    for (size_t i = 0; i < share->n; i++) {
        text_write(w, i == 0 ? "" : ",");
        point_write(w, &share->X[i]);
    }
    text_write(w, "],\"PaillierPKs\":[");
    for (size_t i = 0; i < share->n; i++) {
        text_write(w, i == 0 ? "{\"N\":" : ",{\"N\":");
        decimal_write(w, BIG_OF(share->public_[i].n));
        text_write(w, "}");
    }
    text_write(w, "],\"ECDSAPub\":");
    point_write(w, &share->Y);
    text_write(w, "}");
}

INTERNAL tss_secret *foreign_write(const gg18_share *share) {
    writer measure = writer_measure();
    foreign_put(&measure, share);
    tss_secret *secret = secret_bytes_new(measure.len);
    if (secret != NULL) {
        writer w = writer_open(secret->data, measure.len);
        foreign_put(&w, share);
    }
    return secret;
}

#endif

#endif
