#ifndef TSS_GG18_FOREIGN_H
#define TSS_GG18_FOREIGN_H

#include "share.h"

/* tss-lib's save data: LocalPartySaveData as Go's encoding/json writes it. Integers are bare decimal numbers of up to 617 digits,
 * names are matched exactly, unknown ones skipped. All in the arena. */

/** NULL, or the name of the member that is missing, odd, or contradicts another. */
INTERNAL const char *foreign_read(gg18_share *share, bool v3, size_t threshold, span json);

#ifdef TSS_SEEDED
/** The pre-parameters alone (LocalPreParams): fixtures for tests. */
INTERNAL const char *foreign_read_prepared(gg18_prepared *prepared, span json);

/** NULL: no memory. */
INTERNAL MUST_USE tss_secret *foreign_write(const gg18_share *share);
#endif

#endif
