#ifndef TSS_SECRET_IMPL_H
#define TSS_SECRET_IMPL_H

#include "secret.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SECRET_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SECRET_ASAN 1
#endif
#endif
#ifdef SECRET_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(TSS_VALGRIND) || defined(TSS_CTIME)
#include <valgrind/memcheck.h>
#endif

/* ---- Constant time ---- */

INTERNAL void secret_wipe(void *data, size_t len) {
    if (len != 0) {
        explicit_bzero(data, len);
    }
}

INTERNAL uint64_t ct_mask(uint64_t flag) {
    /* The empty assembly hides where the value came from, so that no later pass knows it to be a boolean. */
    __asm__("" : "+r"(flag));
    return (uint64_t)0 - flag;
}

INTERNAL uint64_t ct_is_zero(uint64_t value) {
    return (uint64_t)1 ^ ((value | ((uint64_t)0 - value)) >> 63);
}

INTERNAL uint64_t ct_equal(const void *a, const void *b, size_t len) {
    const uint8_t *x = a;
    const uint8_t *y = b;
    uint64_t difference = 0;
    for (size_t i = 0; i < len; i++) {
        difference |= (uint64_t)(x[i] ^ y[i]);
    }
    return ct_is_zero(difference);
}

INTERNAL void ct_select(void *out, const void *a, const void *b, size_t len, uint64_t flag) {
    uint8_t *r = out;
    const uint8_t *x = a;
    const uint8_t *y = b;
    const uint8_t mask = (uint8_t)ct_mask(flag);
    for (size_t i = 0; i < len; i++) {
        r[i] = (uint8_t)(y[i] ^ (mask & (x[i] ^ y[i])));
    }
}

/* ---- The arena ----
 *
 * Blocks lie side by side, each with a header in front; first fit; neighbours that are free are joined. Free memory is zero but for
 * headers, so that a block need not be cleared when it is handed out. The last 8 bytes of a used block are a canary. */

#define SECRET_ALIGN ((size_t)64)

typedef struct secret_block {
    size_t len;      /* whole block, header included: a multiple of SECRET_ALIGN */
    size_t previous; /* len of the block before, 0 for the first */
    uint64_t used;   /* the canary, or 0 when free */
    uint8_t padding[SECRET_ALIGN - 24];
} secret_block;

/* A stack is a block: this header, padding up to a page, one inaccessible page, then the stack. */
typedef struct secret_stack {
    struct secret_stack *next; /* idle */
    uint8_t *guard;
    uint8_t *bottom;
} secret_stack;

static struct {
    pthread_mutex_t lock;
    uint8_t *map; /* guard page, arena, guard page; NULL when not open */
    uint8_t *base;
    size_t len;
    size_t page;
    size_t used;
    size_t peak;
    uint64_t canary;
    secret_stack *idle;
} secret_arena = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void secret_lock(void) {
    (void)pthread_mutex_lock(&secret_arena.lock);
}

static void secret_unlock(void) {
    (void)pthread_mutex_unlock(&secret_arena.lock);
}

/* Its first byte and the one behind its last, for secret_owns, which libcrypto's every free asks: without the lock, since nobody can have
 * a block of an arena that is being made or unmapped. But others free what is none, meanwhile: the first byte is only there while the
 * end belongs to it. */
static _Atomic uintptr_t secret_first = UINTPTR_MAX;
static _Atomic uintptr_t secret_end = 0;

static void secret_bounds(const uint8_t *base, size_t len) {
    secret_first = UINTPTR_MAX;
    secret_end = (uintptr_t)base + len;
    secret_first = base == NULL ? UINTPTR_MAX : (uintptr_t)base;
}

/* The arena is not mapped in a forked child: there, forget it. */
static void secret_forget(void) {
    secret_bounds(NULL, 0);
    const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memset(&secret_arena, 0, sizeof secret_arena);
    secret_arena.lock = fresh;
}

static bool secret_map(size_t len, size_t page, uint64_t canary) {
    uint8_t *map = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    uint8_t *base = map + page;
    if (mprotect(base, len, PROT_READ | PROT_WRITE) != 0 || madvise(base, len, MADV_DONTDUMP) != 0
        || madvise(base, len, MADV_DONTFORK) != 0 || mlock(base, len) != 0) {
        (void)munmap(map, len + 2 * page);
        return false;
    }
    secret_arena.map = map;
    secret_arena.base = base;
    secret_arena.len = len;
    secret_arena.page = page;
    secret_arena.used = 0;
    secret_arena.peak = 0;
    secret_arena.canary = canary;
    secret_arena.idle = NULL;
    secret_bounds(base, len);
    *(secret_block *)(void *)base = (secret_block){.len = len};
    return true;
}

INTERNAL bool secret_open(size_t len) {
    static bool watching_forks = false;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t canary = 0;
    bool ok = false;
    secret_lock();
    if (!watching_forks) {
        watching_forks = pthread_atfork(NULL, NULL, secret_forget) == 0;
    }
    if (watching_forks && secret_arena.map == NULL && len != 0 && len <= SIZE_MAX / 2
        && getrandom(&canary, sizeof canary, 0) == (ssize_t)sizeof canary) {
        ok = secret_map((len + page - 1) / page * page, page, canary | 1);
    }
    secret_unlock();
    return ok;
}

INTERNAL bool secret_is_open(void) {
    secret_lock();
    const bool open = secret_arena.map != NULL;
    secret_unlock();
    return open;
}

static secret_block *secret_next(const secret_block *block) {
    uint8_t *next = (uint8_t *)(uintptr_t)block + block->len;
    return next == secret_arena.base + secret_arena.len ? NULL : (secret_block *)(void *)next;
}

static uint8_t *secret_end_canary(const secret_block *block) {
    return (uint8_t *)(uintptr_t)block + block->len - sizeof secret_arena.canary;
}

static void *secret_take(size_t len) {
    if (secret_arena.map == NULL || len > secret_arena.len) {
        return NULL;
    }
    const size_t want =
        (sizeof(secret_block) + len + sizeof secret_arena.canary + SECRET_ALIGN - 1) / SECRET_ALIGN * SECRET_ALIGN;
    secret_block *block = (secret_block *)(void *)secret_arena.base;
    while (block != NULL && (block->used != 0 || block->len < want)) {
        block = secret_next(block);
    }
    if (block == NULL) {
        return NULL;
    }
    if (block->len - want >= 2 * SECRET_ALIGN) {
        secret_block *after = secret_next(block);
        secret_block *rest = (secret_block *)(void *)((uint8_t *)block + want);
        rest->len = block->len - want;
        rest->previous = want;
        if (after != NULL) {
            after->previous = rest->len;
        }
        block->len = want;
    }
    block->used = secret_arena.canary;
    memcpy(secret_end_canary(block), &secret_arena.canary, sizeof secret_arena.canary);
    secret_arena.used += block->len;
    if (secret_arena.used > secret_arena.peak) {
        secret_arena.peak = secret_arena.used;
    }
    return block + 1;
}

/* Join block with the free one after it. */
static void secret_join(secret_block *block, secret_block *next) {
    secret_block *after = secret_next(next);
    block->len += next->len;
    if (after != NULL) {
        after->previous = block->len;
    }
    secret_wipe(next, sizeof *next);
}

static void secret_give_back(void *data) {
    secret_block *block = (secret_block *)data - 1;
    if (block->used != secret_arena.canary
        || memcmp(secret_end_canary(block), &secret_arena.canary, sizeof secret_arena.canary) != 0) {
        abort(); /* something wrote past a block, or frees what it does not own: nothing here can be trusted any more */
    }
    secret_arena.used -= block->len;
    block->used = 0;
    secret_wipe(data, block->len - sizeof *block);
    secret_block *next = secret_next(block);
    if (next != NULL && next->used == 0) {
        secret_join(block, next);
    }
    if (block->previous != 0) {
        secret_block *previous = (secret_block *)(void *)((uint8_t *)block - block->previous);
        if (previous->used == 0) {
            secret_join(previous, block);
        }
    }
}

INTERNAL void *secret_alloc(size_t len) {
    secret_lock();
    void *block = secret_take(len);
    secret_unlock();
    return block;
}

INTERNAL void secret_free(void *block) {
    if (block != NULL) {
        secret_lock();
        secret_give_back(block);
        secret_unlock();
    }
}

INTERNAL bool secret_owns(const void *data) {
    const uintptr_t at = (uintptr_t)data;
    const uintptr_t first = atomic_load_explicit(&secret_first, memory_order_acquire);
    const uintptr_t end = atomic_load_explicit(&secret_end, memory_order_acquire);
    return at >= first && at < end && first == atomic_load_explicit(&secret_first, memory_order_relaxed);
}

INTERNAL void secret_usage(size_t *capacity, size_t *used, size_t *peak) {
    secret_lock();
    *capacity = secret_arena.len;
    *used = secret_arena.used;
    *peak = secret_arena.peak;
    secret_unlock();
}

/* ---- The secret stack ---- */

static void secret_stack_give_back(secret_stack *stack) {
    if (mprotect(stack->guard, secret_arena.page, PROT_READ | PROT_WRITE) != 0) {
        abort(); /* it undoes what was done before; if even that fails, the block can never be wiped */
    }
    secret_give_back(stack);
}

INTERNAL bool secret_close(void) {
    secret_lock();
    const bool open = secret_arena.map != NULL;
    bool closed = false;
    if (open) {
        while (secret_arena.idle != NULL) {
            secret_stack *stack = secret_arena.idle;
            secret_arena.idle = stack->next;
            secret_stack_give_back(stack);
        }
        if (secret_arena.used == 0) {
            secret_wipe(secret_arena.base, secret_arena.len);
            (void)munmap(secret_arena.map, secret_arena.len + 2 * secret_arena.page);
            secret_bounds(NULL, 0);
            secret_arena.map = NULL;
            secret_arena.len = 0;
            secret_arena.peak = 0;
            closed = true;
        }
    }
    secret_unlock();
    return closed;
}

static secret_stack *secret_stack_take(void) {
    secret_lock();
    secret_stack *stack = secret_arena.idle;
    if (stack != NULL) {
        secret_arena.idle = stack->next;
    } else {
        const size_t page = secret_arena.page;
        stack = secret_take(sizeof *stack + 2 * page + SECRET_STACK_LEN);
        if (stack != NULL) {
            const uintptr_t after = (uintptr_t)(stack + 1);
            stack->guard = (uint8_t *)stack + ((after + page - 1) / page * page - (uintptr_t)stack);
            stack->bottom = stack->guard + page;
            if (mprotect(stack->guard, page, PROT_NONE) != 0) {
                secret_give_back(stack);
                stack = NULL;
            }
        }
    }
    secret_unlock();
    return stack;
}

static void secret_stack_release(secret_stack *stack) {
#ifdef SECRET_ASAN
    __asan_unpoison_memory_region(stack->bottom, SECRET_STACK_LEN);
#endif
    secret_wipe(stack->bottom, SECRET_STACK_LEN);
    secret_lock();
    stack->next = secret_arena.idle;
    secret_arena.idle = stack;
    secret_unlock();
}

typedef struct secret_switch {
    void (*function)(void *argument);
    void *argument;
    ucontext_t here; /* where to come back to: the caller's registers */
    ucontext_t there;
#ifdef SECRET_ASAN
    void *fake_stack;
    const void *caller_bottom;
    size_t caller_len;
#endif
} secret_switch;

/* The switch that the calling thread is inside of, or NULL. */
static _Thread_local secret_switch *secret_inside = NULL;

/* Vector registers outlive a call, and a signal handler would push them onto the caller's ordinary stack. */
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void secret_wipe_registers_avx512(void) {
    __asm__ volatile(
        "vpxord %%zmm16, %%zmm16, %%zmm16\n\tvpxord %%zmm17, %%zmm17, %%zmm17\n\t"
        "vpxord %%zmm18, %%zmm18, %%zmm18\n\tvpxord %%zmm19, %%zmm19, %%zmm19\n\t"
        "vpxord %%zmm20, %%zmm20, %%zmm20\n\tvpxord %%zmm21, %%zmm21, %%zmm21\n\t"
        "vpxord %%zmm22, %%zmm22, %%zmm22\n\tvpxord %%zmm23, %%zmm23, %%zmm23\n\t"
        "vpxord %%zmm24, %%zmm24, %%zmm24\n\tvpxord %%zmm25, %%zmm25, %%zmm25\n\t"
        "vpxord %%zmm26, %%zmm26, %%zmm26\n\tvpxord %%zmm27, %%zmm27, %%zmm27\n\t"
        "vpxord %%zmm28, %%zmm28, %%zmm28\n\tvpxord %%zmm29, %%zmm29, %%zmm29\n\t"
        "vpxord %%zmm30, %%zmm30, %%zmm30\n\tvpxord %%zmm31, %%zmm31, %%zmm31\n\t" ::
            : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27",
              "xmm28", "xmm29", "xmm30", "xmm31");
}

__attribute__((target("avx"))) static void secret_wipe_registers_avx(void) {
    __asm__ volatile("vzeroall" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                           "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void secret_wipe_registers(void) {
    if (__builtin_cpu_supports("avx512f")) {
        secret_wipe_registers_avx512();
    }
    if (__builtin_cpu_supports("avx")) {
        secret_wipe_registers_avx();
    }
}
#else
static void secret_wipe_registers(void) {
}
#endif

static void secret_entry(void) {
    secret_switch *s = secret_inside;
#ifdef SECRET_ASAN
    __sanitizer_finish_switch_fiber(NULL, &s->caller_bottom, &s->caller_len);
#endif
    s->function(s->argument);
    secret_wipe_registers();
#ifdef SECRET_ASAN
    __sanitizer_start_switch_fiber(NULL, s->caller_bottom, s->caller_len);
#endif
    (void)setcontext(&s->here);
    abort();
}

/* Apart, because getcontext may return twice as far as the compiler knows. */
static __attribute__((noinline)) void secret_prepare(ucontext_t *there, uint8_t *bottom) {
    if (getcontext(there) != 0) {
        abort(); /* fails for a bad pointer alone */
    }
    there->uc_stack.ss_sp = bottom;
    there->uc_stack.ss_size = SECRET_STACK_LEN;
    there->uc_link = NULL;
    makecontext(there, secret_entry, 0);
}

INTERNAL bool secret_call(void (*function)(void *argument), void *argument) {
    if (secret_inside != NULL) {
        function(argument);
        return true;
    }
    secret_stack *stack = secret_stack_take();
    if (stack == NULL) {
        return false;
    }
    secret_switch s = {.function = function, .argument = argument};
    secret_prepare(&s.there, stack->bottom);
    secret_inside = &s;
#if defined(TSS_VALGRIND) || defined(TSS_CTIME)
    const unsigned id = VALGRIND_STACK_REGISTER(stack->bottom, stack->bottom + SECRET_STACK_LEN - 1);
#endif
#ifdef SECRET_ASAN
    __sanitizer_start_switch_fiber(&s.fake_stack, stack->bottom, SECRET_STACK_LEN);
#endif
    (void)swapcontext(&s.here, &s.there);
#ifdef SECRET_ASAN
    __sanitizer_finish_switch_fiber(s.fake_stack, NULL, NULL);
#endif
#if defined(TSS_VALGRIND) || defined(TSS_CTIME)
    VALGRIND_STACK_DEREGISTER(id);
    VALGRIND_MAKE_MEM_UNDEFINED(stack->bottom, SECRET_STACK_LEN); /* frames that are gone may be wiped all the same */
#endif
    secret_inside = NULL;
    secret_stack_release(stack);
    return true;
}

#endif
