#ifndef TSS_SECRET_H
#define TSS_SECRET_H

#include "check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where secrets live, how they end, and how they are compared.
 *
 * THE ARENA is one mapping between two inaccessible pages: locked in RAM, left out of core dumps, absent in forked children.
 * Blocks are aligned to 64 bytes, zeroed when handed out and wiped when freed. Any thread may allocate and free.
 *
 * THE SECRET STACK. Compilers and libraries spill secrets to the stack. So whatever touches secrets runs inside secret_call,
 * on a stack that is itself a block of the arena, and that is wiped when the call returns. Code in it may keep secrets in local
 * variables without wiping them one by one. Stacks are pooled: one for each call that runs at the same time. */

#ifndef SECRET_STACK_LEN /* the larger frames of an instrumented build need more */
#define SECRET_STACK_LEN ((size_t)192 * 1024) /* usable bytes of one secret stack */
#endif

/** Make the arena. len is rounded up to whole pages. False: made already, or the memory cannot be had or locked. */
INTERNAL MUST_USE bool secret_open(size_t len);

/** Wipe and unmap it. False, and nothing done, when there is none or a block is still in use (idle stacks do not count). */
INTERNAL MUST_USE bool secret_close(void);

INTERNAL bool secret_is_open(void);

/** len >= 1 zeroed bytes, or NULL when the arena has no room (or is not open). */
INTERNAL MUST_USE void *secret_alloc(size_t len);

/** Wipe and give back. NULL does nothing. A broken canary (something wrote past a block) aborts the process. */
INTERNAL void secret_free(void *block);

/** True for an address inside the arena. */
INTERNAL bool secret_owns(const void *data);

/** Bytes that may be allocated, are allocated (stacks and headers included), and were at most. All 0 when not open. */
INTERNAL void secret_usage(size_t *capacity, size_t *used, size_t *peak);

/** Run function(argument) on a secret stack, then wipe the stack. Inside another secret_call it is an ordinary call.
 *
 *  False: there is no room for a stack, and nothing was run. function must return (no longjmp out of it). What argument
 *  points to is not wiped: it lies in the arena, or on an outer secret stack, or holds nothing secret. */
INTERNAL MUST_USE bool secret_call(void (*function)(void *argument), void *argument);

/** Zero len bytes so that no compiler removes it. */
INTERNAL void secret_wipe(void *data, size_t len);

/* ---- Constant time. Flags are 0 or 1. ---- */

/** All ones for flag 1, 0 for flag 0; the compiler cannot turn it back into a branch. */
INTERNAL uint64_t ct_mask(uint64_t flag);

/** 1 if value is 0, else 0. */
INTERNAL uint64_t ct_is_zero(uint64_t value);

/** 1 if equal, else 0. */
INTERNAL uint64_t ct_equal(const void *a, const void *b, size_t len);

/** out = flag ? a : b, byte by byte. out may be a or b. */
INTERNAL void ct_select(void *out, const void *a, const void *b, size_t len, uint64_t flag);

/* ---- Marks for the constant-time test ----
 *
 * Under TSS_CTIME these tell valgrind which bytes are secret (undefined) and which are public from here on; a branch or an address
 * that depends on a secret byte is then reported. Elsewhere they are nothing. Each DECLASSIFY says in a comment why it may. */
#ifdef TSS_CTIME
#include <valgrind/memcheck.h>
#define CLASSIFY(data, len) ((void)VALGRIND_MAKE_MEM_UNDEFINED((data), (len)))
#define DECLASSIFY(data, len) ((void)VALGRIND_MAKE_MEM_DEFINED((data), (len)))
#else
#define CLASSIFY(data, len) ((void)(data), (void)(len))
#define DECLASSIFY(data, len) ((void)(data), (void)(len))
#endif

#endif
