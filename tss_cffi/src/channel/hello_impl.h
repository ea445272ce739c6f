#ifndef TSS_CHANNEL_HELLO_IMPL_H
#define TSS_CHANNEL_HELLO_IMPL_H

#include "../curve.h"
#include "hello.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

INTERNAL size_t ceremony_index(const tss_ceremony *ceremony, uint32_t seat) {
    for (size_t i = 0; i < ceremony->members_len; i++) {
        if (ceremony->members[i].seat == seat) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* Length, without running past the array. */
static span party_id_of(const tss_member *member) {
    return (span){(const uint8_t *)member->party_id, strnlen(member->party_id, sizeof member->party_id)};
}

static const char *members_problem(const tss_ceremony *ceremony) {
    for (size_t i = 0; i < ceremony->members_len; i++) {
        const tss_member *member = &ceremony->members[i];
        const uint32_t after = i == 0 ? 0 : ceremony->members[i - 1].seat;
        if (member->seat <= after || member->seat > TSS_SEAT_MAX) {
            return "ceremony.members.seat";
        }
        if (!party_id_is_valid(party_id_of(member))) {
            return "ceremony.members.party_id";
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(member->party_id, ceremony->members[j].party_id) == 0) {
                return "ceremony.members.party_id";
            }
            if (memcmp(member->identity33, ceremony->members[j].identity33, 33) == 0) {
                return "ceremony.members.identity33";
            }
        }
    }
    return NULL;
}

INTERNAL const char *ceremony_problem(const tss_ceremony *ceremony) {
    point key;
    const bool signing = ceremony->kind == TSS_SIGNING;
    const bool keygen = ceremony->kind == TSS_KEYGEN;
    if (!signing && !keygen && ceremony->kind != TSS_ROTATION) {
        return "ceremony.kind";
    }
    if (ceremony->protocol != TSS_GG18_V2 && ceremony->protocol != TSS_GG18_V3) {
        return "ceremony.protocol";
    }
    if (ceremony->members_len < 2 || ceremony->members_len > TSS_PARTIES_MAX) {
        return "ceremony.members_len";
    }
    if (ceremony->threshold < 2 || ceremony->threshold > ceremony->members_len) {
        return "ceremony.threshold";
    }
    if (keygen && ceremony->generation != 0) {
        return "ceremony.generation";
    }
    if (ceremony->has_public != (keygen ? 0 : 1) || (!keygen && !point_parse(&key, ceremony->public33, 33))) {
        return "ceremony.public33";
    }
    if (ceremony->has_digest != (signing ? 1 : 0)) {
        return "ceremony.digest32";
    }
    const char *problem = members_problem(ceremony);
    if (problem == NULL && ceremony_index(ceremony, ceremony->seat) == SIZE_MAX) {
        problem = "ceremony.seat";
    }
    return problem;
}

static void committee_write(writer *w, const tss_ceremony *ceremony) {
    writer_u16(w, ceremony->members_len);
    for (size_t i = 0; i < ceremony->members_len; i++) {
        writer_u32(w, ceremony->members[i].seat);
        writer_string(w, party_id_of(&ceremony->members[i]));
    }
}

INTERNAL bool committee_digest(uint8_t *digest32, const tss_ceremony *ceremony) {
    uint8_t room[2 + 2 + TSS_PARTIES_MAX * (4 + 2 + TSS_PARTY_ID_MAX)];
    writer w = writer_open(room, sizeof room);
    writer_u16(&w, ceremony->threshold);
    committee_write(&w, ceremony);
    return w.ok && crypto_tagged(digest32, CHANNEL_TAG_COMMITTEE, (span){room, w.len});
}

INTERNAL void hello_write(writer *w, const tss_ceremony *ceremony, const uint8_t *x25519_32, const uint8_t *ed25519_32) {
    const tss_member *self = &ceremony->members[ceremony_index(ceremony, ceremony->seat)];
    writer_header(w, TSS_FRAME_HELLO, ceremony->session16, ceremony->seat);
    writer_u8(w, (uint8_t)ceremony->kind);
    writer_u8(w, (uint8_t)ceremony->protocol);
    writer_string(w, party_id_of(self));
    writer_bytes(w, (span){self->identity33, 33});
    writer_bytes(w, (span){x25519_32, 32});
    writer_bytes(w, (span){ed25519_32, 32});
    committee_write(w, ceremony);
    writer_u16(w, ceremony->threshold);
    writer_u32(w, ceremony->generation);
    writer_string(w, (span){ceremony->public33, ceremony->has_public != 0 ? 33 : 0});
    writer_string(w, (span){ceremony->digest32, ceremony->has_digest != 0 ? 32 : 0});
}

INTERNAL bool hello_read(channel_hello *hello, span body) {
    static const uint8_t none32[32] = {0};
    reader r = reader_open(body);
    *hello = (channel_hello){.header = reader_header(&r), .kind = reader_u8(&r), .protocol = reader_u8(&r)};
    hello->party_id = reader_string(&r, TSS_PARTY_ID_MAX);
    hello->identity = reader_take(&r, 33);
    hello->x25519 = reader_take(&r, 32);
    hello->ed25519 = reader_take(&r, 32);
    hello->committee_len = reader_u16(&r);
    if (hello->committee_len < 2 || hello->committee_len > TSS_PARTIES_MAX) {
        return false;
    }
    /* Two sign nothing with it. */
    const bool has_ed25519 = !span_equal_var(hello->ed25519, (span){none32, sizeof none32});
    bool valid = party_id_is_valid(hello->party_id) && (hello->committee_len > 2 || !has_ed25519);
    for (size_t i = 0; i < hello->committee_len; i++) {
        hello->seats[i] = reader_u32(&r);
        hello->party_ids[i] = reader_string(&r, TSS_PARTY_ID_MAX);
        valid = valid && hello->seats[i] > (i == 0 ? 0 : hello->seats[i - 1]) && party_id_is_valid(hello->party_ids[i]);
    }
    hello->threshold = reader_u16(&r);
    hello->generation = reader_u32(&r);
    hello->public_key = reader_string(&r, 33);
    hello->digest = reader_string(&r, 32);
    return reader_done(&r) && valid && (hello->public_key.len == 0 || hello->public_key.len == 33)
        && (hello->digest.len == 0 || hello->digest.len == 32);
}

/* ---- Differences, in the operators' words ---- */

__attribute__((format(printf, 2, 3))) static void detail_write(char *detail, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(detail, TSS_CHANNEL_DETAIL_MAX, format, arguments);
    va_end(arguments);
}

static bool number_differs(char *detail, const char *field, uint32_t ours, uint32_t theirs) {
    if (ours != theirs) {
        detail_write(detail, "%s: ours %u, theirs %u", field, ours, theirs);
    }
    return ours != theirs;
}

static bool text_differs(char *detail, const char *field, span ours, span theirs) {
    const bool differs = !span_equal_var(ours, theirs);
    if (differs) {
        detail_write(detail, "%s: ours %.*s, theirs %.*s", field, (int)ours.len, (const char *)ours.at, (int)theirs.len,
                     (const char *)theirs.at);
    }
    return differs;
}

/* At most 33 bytes; "none" for no bytes. */
static void hex_write(char *text67, span bytes) {
    static const char digits[] = "0123456789abcdef";
    if (bytes.len == 0) {
        memcpy(text67, "none", sizeof "none");
        return;
    }
    for (size_t i = 0; i < bytes.len && i < 33; i++) {
        text67[2 * i] = digits[bytes.at[i] >> 4];
        text67[2 * i + 1] = digits[bytes.at[i] & 15];
        text67[2 * i + 2] = '\0';
    }
}

static bool bytes_differ(char *detail, const char *field, span ours, span theirs) {
    char ours_hex[67];
    char theirs_hex[67];
    const bool differ = !span_equal_var(ours, theirs);
    if (differ) {
        hex_write(ours_hex, ours);
        hex_write(theirs_hex, theirs);
        detail_write(detail, "%s: ours %s, theirs %s", field, ours_hex, theirs_hex);
    }
    return differ;
}

static bool committee_differs(char *detail, const channel_hello *hello, const tss_ceremony *ceremony) {
    for (size_t i = 0; i < ceremony->members_len && i < hello->committee_len; i++) {
        const span ours = party_id_of(&ceremony->members[i]);
        const span theirs = hello->party_ids[i];
        if (ceremony->members[i].seat != hello->seats[i] || !span_equal_var(ours, theirs)) {
            detail_write(detail, "committee, place %zu: ours seat %u %.*s, theirs seat %u %.*s", i + 1,
                         ceremony->members[i].seat, (int)ours.len, (const char *)ours.at, hello->seats[i],
                         (int)theirs.len, (const char *)theirs.at);
            return true;
        }
    }
    return number_differs(detail, "number of parties", ceremony->members_len, hello->committee_len);
}

INTERNAL bool hello_differs(char *detail, const channel_hello *hello, const tss_ceremony *ceremony, size_t index) {
    const tss_member *member = &ceremony->members[index];
    return number_differs(detail, "ceremony type", (uint32_t)ceremony->kind, hello->kind)
        || number_differs(detail, "protocol profile", (uint32_t)ceremony->protocol, hello->protocol)
        || text_differs(detail, "party id", party_id_of(member), hello->party_id)
        || bytes_differ(detail, "identity key", (span){member->identity33, 33}, hello->identity)
        || committee_differs(detail, hello, ceremony)
        || number_differs(detail, "threshold", ceremony->threshold, hello->threshold)
        || number_differs(detail, "share generation", ceremony->generation, hello->generation)
        || bytes_differ(detail, "public key", (span){ceremony->public33, ceremony->has_public != 0 ? 33 : 0}, hello->public_key)
        || bytes_differ(detail, "message hash", (span){ceremony->digest32, ceremony->has_digest != 0 ? 32 : 0}, hello->digest);
}

/* ---- Ready ---- */

INTERNAL void ready_write(writer *w, const tss_ceremony *ceremony, const uint8_t (*hashes32)[32]) {
    writer_header(w, TSS_FRAME_READY, ceremony->session16, ceremony->seat);
    writer_u16(w, ceremony->members_len);
    for (size_t i = 0; i < ceremony->members_len; i++) {
        writer_bytes(w, (span){hashes32[i], 32});
    }
}

INTERNAL bool ready_read(channel_header *header, uint8_t (*hashes32)[32], size_t count, span body) {
    reader r = reader_open(body);
    *header = reader_header(&r);
    if (reader_u16(&r) != count) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        reader_copy(&r, hashes32[i], 32);
    }
    return reader_done(&r);
}

#endif
