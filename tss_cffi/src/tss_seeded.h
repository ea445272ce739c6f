#ifndef TSS_SEEDED_H
#define TSS_SEEDED_H

#include "../include/tss.h"

/* What only a test build of the core (TSS_SEEDED) can do, and no wheel contains. The grammar of tss.h holds. */

/** From here on all randomness of the process comes from seed32, so that a ceremony replays; NULL: from the system again. */
TSS_API void tss_seeded_randomness(const uint8_t *seed32);

/** Pre-parameters out of tss-lib's LocalPreParams as JSON: fixtures, whose secrets others know.
 *  Returns TSS_OK, TSS_MISUSE, TSS_REFUSED (tss_last_misuse names the member), TSS_MEMORY */
TSS_API TSS_MUST_USE tss_status tss_seeded_prepared(tss_secret **prepared, tss_protocol protocol, const tss_secret *json);

/** A share as tss-lib's LocalPartySaveData in JSON. */
TSS_API TSS_MUST_USE tss_status tss_seeded_export(tss_secret **json, const tss_share *share);

#endif
