#ifndef TSS_CHANNEL_WINDOW_H
#define TSS_CHANNEL_WINDOW_H

#include "encoding.h"

/* The frames to and from one peer: what was sent is kept, as sent, to the end; what arrives is put in order. Sequence 0, each way,
 * is the ready. Everything here is ciphertext or public, on the heap, and bounded. docs/channel.md, "Order, acks, resend". */

#define WINDOW_LEN ((uint64_t)64)
#define WINDOW_HELD_MAX ((size_t)1024 * 1024) /* bytes held for one peer */
#define WINDOW_AHEAD_MAX (WINDOW_HELD_MAX / 2) /* of those, behind a gap: leaves room to close it */
#define WINDOW_SENT_MAX ((size_t)256)          /* frames sent to one peer */
#define WINDOW_EARLY_MAX ((size_t)8)           /* frames kept before there are keys to check them */
#define WINDOW_EARLY_BYTES_MAX ((size_t)512 * 1024)

typedef struct window_frame {
    uint8_t *data; /* NULL: none */
    size_t len;
    uint16_t round;
} window_frame;

typedef struct window {
    window_frame *sent; /* by sequence */
    size_t sent_len;
    size_t cursor; /* the next to hand out */

    window_frame held[WINDOW_LEN]; /* by sequence modulo WINDOW_LEN: genuine, and not in their turn yet */
    uint64_t next;   /* to be delivered */
    uint64_t wanted; /* the first that is missing: next <= wanted <= next + WINDOW_LEN */
    size_t held_bytes;

    window_frame early[WINDOW_EARLY_MAX]; /* not checked yet */
    size_t early_len;
    size_t early_bytes;
} window;

INTERNAL void window_free(window *w);

/** Keep a frame that is to be sent; takes data over, also when it fails. */
INTERNAL MUST_USE bool window_send(window *w, uint8_t *data, size_t len, uint16_t round);

/** Sequence 0 has come. */
INTERNAL void window_begin(window *w);

/** May a genuine frame of that length be held? */
INTERNAL bool window_has_room(const window *w, uint64_t sequence, size_t len);
INTERNAL bool window_has(const window *w, uint64_t sequence);

/** Hold a copy of a genuine frame. False: no memory. */
INTERNAL MUST_USE bool window_hold(window *w, uint64_t sequence, span frame, uint16_t round);

/** The frame that is held and next in order, or NULL; and letting it go. */
INTERNAL const window_frame *window_next(const window *w);
INTERNAL void window_delivered(window *w);

/** The frame that is next in order was delivered as it came, without being held. */
INTERNAL void window_pass(window *w);

/** Keep a copy of a frame that cannot be checked yet. False: no room. */
INTERNAL MUST_USE bool window_keep_early(window *w, span frame);

#endif
