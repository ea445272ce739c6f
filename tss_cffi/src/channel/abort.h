#ifndef TSS_CHANNEL_ABORT_H
#define TSS_CHANNEL_ABORT_H

#include "crypto.h"
#include "encoding.h"

/* A seat's notice, under its identity's signature, that it has given a ceremony up. docs/channel.md, "Abort". */

#define ABORT_BODY_MAX (CHANNEL_HEADER_LEN + 2 + TSS_PARTY_ID_MAX + 2 + TSS_CHANNEL_REASON_MAX + 2 + 4 * TSS_PARTIES_MAX)

INTERNAL void abort_write(writer *w, const tss_abort *notice);
INTERNAL MUST_USE bool abort_parse(tss_abort *notice, span body);

/** 1..TSS_CHANNEL_REASON_MAX of [a-z0-9-] */
INTERNAL bool abort_reason_is_valid(span reason);

#endif
