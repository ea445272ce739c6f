#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>

/* Calls of the system that can be told to fail. */
static int refuse_mlock, refuse_madvise, refuse_mprotect, refuse_random, refuse_atfork;

static int test_mlock(const void *address, size_t len) {
    return refuse_mlock != 0 ? -1 : mlock(address, len);
}

static int test_madvise(void *address, size_t len, int advice) {
    return advice == refuse_madvise ? -1 : madvise(address, len, advice);
}

static int test_mprotect(void *address, size_t len, int protection) {
    return refuse_mprotect != 0 ? -1 : mprotect(address, len, protection);
}

static ssize_t test_getrandom(void *data, size_t len, unsigned flags) {
    return refuse_random != 0 ? -1 : getrandom(data, len, flags);
}

static int test_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    return refuse_atfork != 0 ? -1 : pthread_atfork(prepare, parent, child);
}

#define mlock test_mlock
#define madvise test_madvise
#define mprotect test_mprotect
#define getrandom test_getrandom
#define pthread_atfork test_atfork

#include "test.h"

/* How a child that runs function(argument) ends: its exit status, or -signal. */
static int in_a_child(void (*function)(void *), void *argument) {
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* the sanitizer's handler would explain at length */
        (void)signal(SIGABRT, SIG_DFL);
        function(argument);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void usage_is(size_t used) {
    size_t capacity, now, peak;
    secret_usage(&capacity, &now, &peak);
    CHECK(now == used && peak >= now && capacity >= now);
}

static size_t used(void) {
    size_t capacity, now, peak;
    secret_usage(&capacity, &now, &peak);
    return now;
}

static int all_zero(const uint8_t *data, size_t len) {
    uint8_t any = 0;
    for (size_t i = 0; i < len; i++) {
        any |= data[i];
    }
    return any == 0;
}

static void opens_once(void) {
    CHECK(!secret_is_open() && !secret_close() && secret_alloc(1) == NULL);
    CHECK(!secret_call(NULL, NULL));
    usage_is(0);
    CHECK(!secret_open(0) && !secret_open(SIZE_MAX));
    CHECK(secret_open((1 << 20) - 5));
    CHECK(secret_is_open() && !secret_open(1 << 20));
    size_t capacity, now, peak;
    secret_usage(&capacity, &now, &peak);
    CHECK(capacity == 1 << 20 && now == 0 && peak == 0);
    CHECK(secret_close() && !secret_is_open());
}

static void what_the_system_refuses_is_refused(void) {
    /* The first comes first: it is asked for once. */
    int *const refusals[] = {&refuse_atfork, &refuse_mlock, &refuse_mprotect, &refuse_random};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        *refusals[i] = 1;
        CHECK(!secret_open(1 << 20) && !secret_is_open());
        *refusals[i] = 0;
    }
    refuse_madvise = MADV_DONTDUMP;
    CHECK(!secret_open(1 << 20));
    refuse_madvise = MADV_DONTFORK;
    CHECK(!secret_open(1 << 20));
    refuse_madvise = 0;
    CHECK(!secret_open((size_t)1 << 55) && !secret_is_open());
    usage_is(0);
    /* A stack without its guard is no stack. */
    CHECK(secret_open(1 << 20));
    refuse_mprotect = 1;
    CHECK(!secret_call(NULL, NULL));
    usage_is(0);
    refuse_mprotect = 0;
    CHECK(secret_close());
}

static void blocks_are_zeroed_wiped_and_joined(void) {
    enum { BLOCKS = 200 };
    uint8_t *block[BLOCKS] = {0};
    size_t len[BLOCKS] = {0};
    CHECK(secret_open(1 << 20));
    for (int i = 0; i < 20 * ROUNDS; i++) {
        const size_t k = test_below(BLOCKS);
        if (block[k] == NULL) {
            len[k] = 1 + test_below(test_below(8) == 0 ? 20000 : 700);
            block[k] = secret_alloc(len[k]);
            if (block[k] != NULL) {
                CHECK((uintptr_t)block[k] % 64 == 0 && all_zero(block[k], len[k]));
                memset(block[k], (int)(k + 1), len[k]);
            }
        } else {
            for (size_t j = 0; j < len[k]; j++) {
                CHECK(block[k][j] == (uint8_t)(k + 1));
            }
            secret_free(block[k]);
            CHECK(len[k] < 200 || all_zero(block[k], len[k] - 128)); /* the rest may be headers of neighbours by now */
            block[k] = NULL;
        }
    }
    CHECK(!secret_close());
    for (size_t k = 0; k < BLOCKS; k++) {
        secret_free(block[k]);
    }
    usage_is(0);
    /* All joined again: nearly everything fits into one block, and everything does not. */
    uint8_t *all = secret_alloc((1 << 20) - 128);
    CHECK(all != NULL && all_zero(all, (1 << 20) - 128));
    CHECK(secret_alloc(1) == NULL);
    secret_free(all);
    CHECK(secret_alloc(1 << 20) == NULL && secret_alloc(SIZE_MAX) == NULL);
    size_t capacity, now, peak;
    secret_usage(&capacity, &now, &peak);
    CHECK(peak >= (1 << 20) - 128);
    secret_free(NULL);
    CHECK(secret_close());
}

static void read_before(void *arena) {
    (void)((volatile uint8_t *)arena)[-1];
}

static void read_behind(void *arena) {
    (void)((volatile uint8_t *)arena)[1 << 20];
}

static void touch(void *block) {
    (void)*(volatile uint8_t *)block;
}

static void overrun(void *block) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* Children do not have the arena, so this one makes its own. */
    (void)block;
    CHECK(secret_open(16 * page));
    volatile uint8_t *mine = secret_alloc(64);
    for (size_t i = 0; i < 65 + 56; i++) {
        mine[i] = 1;
    }
    secret_free((void *)(uintptr_t)mine);
}

static void free_twice(void *unused) {
    (void)unused;
    CHECK(secret_open(1 << 16));
    void *block = secret_alloc(64);
    CHECK(secret_alloc(64) != NULL);
    secret_free(block);
    secret_free(block);
}

static void guards_hold_and_children_have_nothing(void) {
    CHECK(secret_open(1 << 20));
    uint8_t *block = secret_alloc(100);
    CHECK(block == secret_arena.base + sizeof(secret_block));
    /* In this process the guard pages fault too: their protection says so (VmFlags below); here a child without the arena. */
    CHECK(in_a_child(touch, block) == -SIGSEGV);
    CHECK(in_a_child(read_before, secret_arena.base) == -SIGSEGV);
    CHECK(in_a_child(read_behind, secret_arena.base) == -SIGSEGV);
    CHECK(in_a_child(overrun, NULL) == -SIGABRT);
    CHECK(in_a_child(free_twice, NULL) == -SIGABRT);
    secret_free(block);
    CHECK(secret_close());
}

/* A child with its own arena runs into a guard page. */
static void own_guard(void *offset) {
    CHECK(secret_open(1 << 20));
    const size_t page = secret_arena.page;
    CHECK(memcpy(secret_arena.base, secret_arena.base + (1 << 20) - page, 8) != NULL); /* both ends are there */
    (void)((volatile uint8_t *)secret_arena.base)[*(const ptrdiff_t *)offset];
}

static void guard_pages_fault(void) {
    ptrdiff_t before = -1;
    ptrdiff_t behind = 1 << 20;
    ptrdiff_t within = 8;
    CHECK(in_a_child(own_guard, &before) == -SIGSEGV);
    CHECK(in_a_child(own_guard, &behind) == -SIGSEGV);
    CHECK(in_a_child(own_guard, &within) == 0);
}

/* The flags that the kernel keeps for the mapping that holds address. */
static void mapping_flags(char *flags, size_t room, const void *address) {
    char line[512];
    bool inside = false;
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps != NULL);
    flags[0] = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            inside = from <= (uintptr_t)address && (uintptr_t)address < to;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            strncpy(flags, line + 8, room - 1);
        }
    }
    (void)fclose(maps);
}

static void the_kernel_keeps_it_out_of_swap_and_dumps(void) {
    char flags[512] = {0};
    CHECK(secret_open(1 << 20));
    mapping_flags(flags, sizeof flags, secret_arena.base + 5000);
    if (flags[0] != 0) { /* some sandboxes have no VmFlags */
#ifndef SECRET_ASAN /* which turns mlock into nothing */
        CHECK(strstr(flags, " lo") != NULL);
#endif
        CHECK(strstr(flags, " dd") != NULL && strstr(flags, " dc") != NULL);
        CHECK(strstr(flags, " rd") != NULL && strstr(flags, " wr") != NULL);
        mapping_flags(flags, sizeof flags, secret_arena.base - 1);
        CHECK(strstr(flags, " rd") == NULL && strstr(flags, " wr") == NULL);
    }
    unsigned char resident = 0;
    CHECK(mincore(secret_arena.base, secret_arena.page, &resident) == 0 && (resident & 1) == 1);
    CHECK(secret_close());
}

/* ---- The secret stack ---- */

typedef struct visit {
    uint8_t *local; /* an address on the stack, remembered on purpose */
    size_t depth;
    int calls;
} visit;

static __attribute__((noinline)) size_t deeper(size_t depth, uint8_t **low) {
    volatile uint8_t room[256];
    memset((void *)(uintptr_t)room, 0x5a, sizeof room);
    *low = (uint8_t *)(uintptr_t)room;
    const size_t below = depth == 0 ? 0 : deeper(depth - 1, low);
    return below + room[0];
}

static void look_around(void *argument) {
    visit *v = argument;
    v->calls++;
    CHECK(deeper(v->depth, &v->local) == (v->depth + 1) * 0x5a);
}

static void calls_within_calls(void *argument) {
    visit *v = argument;
    const size_t before = used();
    CHECK(secret_call(look_around, v));
    CHECK(used() == before);
}

static void stacks_are_wiped_and_pooled(void) {
    visit v = {.depth = 100};
    CHECK(secret_open(1 << 20));
    CHECK(secret_call(look_around, &v) && v.calls == 1);
    uint8_t *bottom = secret_arena.idle->bottom;
    CHECK(v.local > bottom && v.local < bottom + SECRET_STACK_LEN);
    CHECK(all_zero(bottom, SECRET_STACK_LEN));
    const size_t one = used();
    CHECK(secret_call(calls_within_calls, &v) && v.calls == 2 && used() == one);
    CHECK(secret_arena.idle->bottom == bottom && all_zero(bottom, SECRET_STACK_LEN));
    CHECK(secret_close()); /* idle stacks are nobody's */
    /* No room for a stack: nothing is run. */
    CHECK(secret_open(SECRET_STACK_LEN));
    CHECK(!secret_call(look_around, &v) && v.calls == 2);
    CHECK(secret_close());
}

static void fall_off(void *unused) {
    (void)unused;
    volatile uint8_t *address = secret_arena.base; /* never reached */
    uint8_t *bottom = NULL;
    for (uint8_t *p = (uint8_t *)__builtin_frame_address(0); p > (uint8_t *)(uintptr_t)address; p -= 4096) {
        bottom = p;
        (void)*(volatile uint8_t *)p;
    }
    (void)bottom;
}

static void overflow_a_stack(void *unused) {
    (void)unused;
    CHECK(secret_open(1 << 20));
    CHECK(secret_call(fall_off, NULL));
}

static void a_stack_that_overflows_faults(void) {
    CHECK(in_a_child(overflow_a_stack, NULL) == -SIGSEGV);
}

static void add_one(void *argument) {
    uint8_t *low;
    (void)deeper(50, &low);
    *(int *)argument += 1;
}

static void *many_calls(void *count) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(secret_call(add_one, count));
        void *block = secret_alloc(100);
        CHECK(block != NULL);
        secret_free(block);
    }
    return NULL;
}

static void threads_share_the_arena(void) {
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    int count[THREADS] = {0};
    CHECK(secret_open(2 << 20));
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&thread[i], NULL, many_calls, &count[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0 && count[i] == ROUNDS);
    }
    CHECK(secret_close());
}

static void registers_are_wiped(void *unused) {
    (void)unused;
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
    __asm__ volatile("pcmpeqd %%xmm5, %%xmm5" ::: "xmm5");
#endif
}

static void vector_registers_do_not_outlive_a_call(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx")) {
        uint64_t left[2] = {1, 1};
        CHECK(secret_open(1 << 20));
        CHECK(secret_call(registers_are_wiped, NULL));
        CHECK(secret_call(registers_are_wiped, NULL));
        __asm__ volatile("movdqu %%xmm5, %0" : "=m"(left));
        CHECK(left[0] != UINT64_MAX && left[1] != UINT64_MAX);
        CHECK(secret_close());
    }
#endif
}

/* ---- Constant time ---- */

static void comparisons_are_right(void) {
    uint8_t a[70], b[70], r[70];
    for (int i = 0; i < ROUNDS; i++) {
        const size_t len = test_below(sizeof a);
        for (size_t j = 0; j < len; j++) {
            a[j] = (uint8_t)test_below(256);
            b[j] = a[j];
        }
        CHECK(ct_equal(a, b, len) == 1);
        ct_select(r, a, b, len, 0);
        CHECK(memcmp(r, b, len) == 0);
        if (len > 0) {
            const size_t at = test_below(len);
            b[at] = (uint8_t)(b[at] ^ (1u << test_below(8)));
            CHECK(ct_equal(a, b, len) == 0);
            ct_select(r, a, b, len, 1);
            CHECK(memcmp(r, a, len) == 0);
            ct_select(a, a, b, len, 0);
            CHECK(memcmp(a, b, len) == 0);
        }
    }
    CHECK(ct_mask(0) == 0 && ct_mask(1) == UINT64_MAX);
    CHECK(ct_is_zero(0) == 1 && ct_is_zero(1) == 0 && ct_is_zero(UINT64_MAX) == 0 && ct_is_zero((uint64_t)1 << 63) == 0);
    secret_wipe(a, 0);
    secret_wipe(b, sizeof b);
    CHECK(all_zero(b, sizeof b));
}

static atomic_bool churning;
static atomic_uint taken_for_ours;

static void *asks_about_the_heap(void *block) {
    while (churning) {
        taken_for_ours += secret_owns(block) ? 1 : 0;
    }
    return NULL;
}

static void a_heap_block_is_never_the_arenas(void) {
    pthread_t threads[2];
    void *block = malloc(64);
    CHECK(block != NULL);
    churning = true;
    for (size_t i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, asks_about_the_heap, block) == 0);
    }
    for (size_t i = 0; i < 2000; i++) {
        CHECK(secret_open(65536));
        CHECK(secret_close());
    }
    churning = false;
    for (size_t i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    free(block);
    CHECK(taken_for_ours == 0);
}

int main(void) {
    gmp_randinit_default(test_state);
    gmp_randseed_ui(test_state, 1);
    what_the_system_refuses_is_refused();
    opens_once();
    blocks_are_zeroed_wiped_and_joined();
    guards_hold_and_children_have_nothing();
    guard_pages_fault();
    the_kernel_keeps_it_out_of_swap_and_dumps();
    stacks_are_wiped_and_pooled();
    a_stack_that_overflows_faults();
    threads_share_the_arena();
    vector_registers_do_not_outlive_a_call();
    comparisons_are_right();
    a_heap_block_is_never_the_arenas();
    gmp_randclear(test_state);
    return 0;
}
