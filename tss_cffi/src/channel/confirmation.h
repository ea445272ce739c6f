#ifndef TSS_CHANNEL_CONFIRMATION_H
#define TSS_CHANNEL_CONFIRMATION_H

#include "crypto.h"
#include "encoding.h"

/* What a seat states, under its identity's signature, when it has its result and has stored it. docs/channel.md, "Confirmation". */

#define CONFIRMATION_BODY_MAX (CHANNEL_HEADER_LEN + 1 + 1 + 4 + 32 + 32 + 32 + 2 + 64)

INTERNAL void confirmation_write(writer *w, const tss_confirmation *confirmation);
INTERNAL MUST_USE bool confirmation_parse(tss_confirmation *confirmation, span body);

/** All but the seat is equal. */
INTERNAL bool confirmations_agree(span body_a, span body_b);

#endif
