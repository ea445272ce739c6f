/* Reading and writing of bytes, and what everything that is kept begins with. */

#include "test.h"

#include "wire_impl.h"

#include "party_impl.h"

#include "protocol_impl.h"

static span bytes_of(const void *at, size_t len) { return (span){at, len}; }

static void a_reader_takes_what_is_there_and_fails_for_good(void) {
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    reader r = reader_open(bytes_of(data, sizeof data));
    CHECK(!reader_done(&r));
    CHECK(reader_u8(&r) == 0x01 && reader_u16(&r) == 0x0203 && reader_u32(&r) == 0x04050607);
    const span none = reader_take(&r, 0);
    CHECK(none.len == 0 && r.ok);
    CHECK(reader_take(&r, 2).at == data + 7 && reader_done(&r));

    /* One byte more than there is, in every width; nothing comes after a failure, not even what would be there. */
    for (size_t len = 0; len < 4; len++) {
        reader u8 = reader_open(bytes_of(data, len == 0 ? 0 : 1));
        reader u16 = reader_open(bytes_of(data, len < 2 ? len : 1));
        reader u32 = reader_open(bytes_of(data, len));
        CHECK(len != 0 || (reader_u8(&u8) == 0 && !u8.ok));
        CHECK(reader_u16(&u16) == 0 && !u16.ok && reader_u8(&u16) == 0 && !reader_done(&u16));
        (void)reader_u32(&u32);
        CHECK(!u32.ok && reader_take(&u32, 0).at == NULL && !reader_done(&u32));
    }
    reader huge = reader_open(bytes_of(data, sizeof data));
    CHECK(reader_take(&huge, SIZE_MAX).at == NULL && !huge.ok);
    reader empty = reader_open(bytes_of(NULL, 0));
    CHECK(reader_done(&empty));
}

static void put(writer *w) {
    static const uint8_t tail[3] = {7, 8, 9};
    writer_u8(w, 1);
    writer_u16(w, 0x0203);
    writer_u32(w, 0x04050607);
    writer_bytes(w, bytes_of(tail, sizeof tail));
    writer_bytes(w, bytes_of(NULL, 0));
}

static void a_writer_keeps_to_its_room(void) {
    static const uint8_t expected[] = {1, 2, 3, 4, 5, 6, 7, 7, 8, 9};
    uint8_t out[sizeof expected + 1];
    writer measure = writer_measure();
    put(&measure);
    CHECK(measure.ok && measure.len == sizeof expected);
    for (size_t room = 0; room <= sizeof expected; room++) {
        memset(out, 0xee, sizeof out);
        writer w = writer_open(out, room);
        put(&w);
        CHECK(w.ok == (room == sizeof expected) && w.len <= room);
        CHECK(memcmp(out, expected, w.len) == 0);
        for (size_t i = w.len; i < sizeof out; i++) {
            CHECK(out[i] == 0xee);
        }
        const size_t len = w.len;
        writer_bytes(&w, bytes_of(NULL, 0));
        CHECK(w.len == len);
    }
}

static void integers_are_minimal(void) {
    static const uint8_t padded[] = {0, 0, 0, 5, 0};
    const span minimal = span_minimal(bytes_of(padded, sizeof padded));
    CHECK(minimal.at == padded + 3 && minimal.len == 2);
    CHECK(span_minimal(bytes_of(padded, 3)).len == 0 && span_minimal(bytes_of(NULL, 0)).len == 0);
    CHECK(span_minimal(minimal).at == minimal.at);
    CHECK(span_equal_var(bytes_of(padded, 2), bytes_of(padded + 1, 2)));
    CHECK(!span_equal_var(bytes_of(padded, 2), bytes_of(padded, 3)) && !span_equal_var(bytes_of(padded, 2), minimal));
    CHECK(span_equal_var(bytes_of(NULL, 0), bytes_of(padded, 0)));
}

static void what_is_kept_says_what_it_is(void) {
    uint8_t out[16];
    writer w = writer_open(out, sizeof out);
    kept_write(&w, KEPT_SHARE, TSS_GG18_V3);
    CHECK(w.ok);
    for (size_t i = 0; i <= w.len; i++) {
        /* Whole; then with each byte of it changed; the last one is the protocol, and is only read. */
        uint8_t changed[16];
        memcpy(changed, out, w.len);
        changed[i] = (uint8_t)(i < w.len ? changed[i] ^ 0x40 : 0);
        reader r = reader_open(bytes_of(changed, w.len));
        const uint8_t expected = i + 1 < w.len ? 0 : (uint8_t)(i < w.len ? TSS_GG18_V3 ^ 0x40 : TSS_GG18_V3);
        CHECK(kept_read(&r, KEPT_SHARE) == expected);
        reader cut = reader_open(bytes_of(out, i < w.len ? i : 0));
        CHECK(kept_read(&cut, KEPT_SHARE) == 0);
    }
    reader other = reader_open(bytes_of(out, w.len));
    CHECK(kept_read(&other, KEPT_PREPARED) == 0);
}

int main(void) {
    a_reader_takes_what_is_there_and_fails_for_good();
    a_writer_keeps_to_its_room();
    integers_are_minimal();
    what_is_kept_says_what_it_is();
    return 0;
}
