#ifndef TSS_CHECK_H
#define TSS_CHECK_H

/* VERIFY_CHECK(condition): our own invariants. Live in test builds (TSS_VERIFY), free in the others. Never over secrets. */
#ifdef TSS_VERIFY
#include <stdio.h>
#include <stdlib.h>
#define VERIFY_CHECK(condition)                                                            \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            (void)fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);  \
            abort();                                                                       \
        }                                                                                  \
    } while (0)
#else
#define VERIFY_CHECK(condition) ((void)0)
#endif

/* The core is one translation unit of static functions; a unit test that includes some of its files leaves others unused. */
#define INTERNAL static __attribute__((unused))
#define MUST_USE __attribute__((warn_unused_result))

#endif
