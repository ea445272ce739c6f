#ifndef TSS_CHANNEL_WINDOW_IMPL_H
#define TSS_CHANNEL_WINDOW_IMPL_H

#include "window.h"

#include <stdlib.h>
#include <string.h>

static bool window_copy(window_frame *frame, span bytes, uint16_t round) {
    frame->data = malloc(bytes.len == 0 ? 1 : bytes.len);
    if (frame->data == NULL) {
        return false;
    }
    memcpy(frame->data, bytes.at, bytes.len);
    frame->len = bytes.len;
    frame->round = round;
    return true;
}

INTERNAL void window_free(window *w) {
    for (size_t i = 0; i < w->sent_len; i++) {
        free(w->sent[i].data);
    }
    free(w->sent);
    for (size_t i = 0; i < WINDOW_LEN; i++) {
        free(w->held[i].data);
    }
    for (size_t i = 0; i < w->early_len; i++) {
        free(w->early[i].data);
    }
    *w = (window){0};
}

INTERNAL bool window_send(window *w, uint8_t *data, size_t len, uint16_t round) {
    /* Grown by eight: a peer gets about a dozen frames in a ceremony. */
    window_frame *grown = w->sent;
    if (data != NULL && w->sent_len < WINDOW_SENT_MAX && w->sent_len % 8 == 0) {
        grown = realloc(w->sent, (w->sent_len + 8) * sizeof w->sent[0]);
    }
    if (data == NULL || w->sent_len >= WINDOW_SENT_MAX || grown == NULL) {
        free(data);
        return false;
    }
    w->sent = grown;
    w->sent[w->sent_len++] = (window_frame){data, len, round};
    return true;
}

static void window_advance(window *w) {
    while (w->wanted < w->next + WINDOW_LEN && w->held[w->wanted % WINDOW_LEN].data != NULL) {
        w->wanted++;
    }
}

INTERNAL void window_begin(window *w) {
    VERIFY_CHECK(w->next == 0 && w->wanted == 0);
    w->next = 1;
    w->wanted = 1;
    window_advance(w);
}

INTERNAL bool window_has_room(const window *w, uint64_t sequence, size_t len) {
    return w->held_bytes + len <= (sequence == w->wanted ? WINDOW_HELD_MAX : WINDOW_AHEAD_MAX);
}

INTERNAL bool window_has(const window *w, uint64_t sequence) {
    return sequence < w->wanted || (sequence < w->next + WINDOW_LEN && w->held[sequence % WINDOW_LEN].data != NULL);
}

INTERNAL bool window_hold(window *w, uint64_t sequence, span frame, uint16_t round) {
    VERIFY_CHECK(!window_has(w, sequence) && sequence < w->next + WINDOW_LEN);
    if (!window_copy(&w->held[sequence % WINDOW_LEN], frame, round)) {
        return false;
    }
    w->held_bytes += frame.len;
    window_advance(w);
    return true;
}

INTERNAL const window_frame *window_next(const window *w) {
    return w->next < w->wanted ? &w->held[w->next % WINDOW_LEN] : NULL;
}

INTERNAL void window_delivered(window *w) {
    window_frame *frame = &w->held[w->next % WINDOW_LEN];
    VERIFY_CHECK(frame->data != NULL);
    w->held_bytes -= frame->len;
    free(frame->data);
    *frame = (window_frame){0};
    w->next++;
}

INTERNAL void window_pass(window *w) {
    VERIFY_CHECK(w->next != 0 && w->next == w->wanted);
    w->next++;
    w->wanted++;
    window_advance(w);
}

INTERNAL bool window_keep_early(window *w, span frame) {
    if (w->early_len == WINDOW_EARLY_MAX || w->early_bytes + frame.len > WINDOW_EARLY_BYTES_MAX
        || !window_copy(&w->early[w->early_len], frame, 0)) {
        return false;
    }
    w->early_len++;
    w->early_bytes += frame.len;
    return true;
}

#endif
