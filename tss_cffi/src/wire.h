#ifndef TSS_WIRE_H
#define TSS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check.h"

/* Bounded reading and writing of bytes. Both remember their first failure and do nothing after it, so a caller checks once,
 * at the end. No other file moves a pointer through bytes that came from outside. */

/* Bytes that somebody else owns. */
typedef struct span {
    const uint8_t *at;
    size_t len;
} span;

typedef struct reader {
    span left;
    bool ok;
} reader;

INTERNAL reader reader_open(span bytes);
/** The next len bytes; an empty span, and failure, if there are not that many. */
INTERNAL span reader_take(reader *r, size_t len);
INTERNAL uint8_t reader_u8(reader *r);
INTERNAL uint16_t reader_u16(reader *r);
INTERNAL uint32_t reader_u32(reader *r);
/** True when nothing failed and nothing is left. */
INTERNAL bool reader_done(const reader *r);

/* Counts when `at` is NULL, so the same code that writes can measure. */
typedef struct writer {
    uint8_t *at;
    size_t len; /* written so far */
    size_t room;
    bool ok;
} writer;

INTERNAL writer writer_open(uint8_t *at, size_t room);
INTERNAL writer writer_measure(void);
INTERNAL void writer_bytes(writer *w, span bytes);
INTERNAL void writer_u8(writer *w, uint8_t value);
INTERNAL void writer_u16(writer *w, uint16_t value);
INTERNAL void writer_u32(writer *w, uint32_t value);

/** The integer's bytes without leading zeros: tss-lib's and JSON's idea of an unsigned big-endian integer. */
INTERNAL span span_minimal(span big_endian);
INTERNAL bool span_equal_var(span a, span b);

#endif
