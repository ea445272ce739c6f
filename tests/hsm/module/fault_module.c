/* A PKCS#11 module for tests: forwards every call to a real one and misbehaves where it is told to.
 *
 * Environment: TSSD_FAULT_TARGET, path of the real module; TSSD_FAULT_CONTROL, a file of sizeof(struct control) bytes that
 * is mapped shared, so that a test steers and observes it from outside, in another process too. tests/hsm/fault.py is the
 * other end and knows the layout.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cryptoki.h"

#define CKR_DATA_LEN_RANGE 0x21UL
#define CKR_DEVICE_ERROR 0x30UL
#define CKR_ENCRYPTED_DATA_LEN_RANGE 0x41UL
#define CKR_KEY_NOT_WRAPPABLE 0x69UL
#define CKR_MECHANISM_INVALID 0x70UL
#define CKR_MECHANISM_PARAM_INVALID 0x71UL
#define CKR_PIN_INCORRECT 0xA0UL
#define CKR_PIN_LOCKED 0xA4UL
#define CKR_SESSION_COUNT 0xB1UL
#define CKR_TEMPLATE_INCOMPLETE 0xD0UL
#define CKR_TEMPLATE_INCONSISTENT 0xD1UL
#define CKM_AES_KEY_WRAP 0x2109UL
#define CKM_AES_GCM 0x1087UL
#define CKA_CLASS 0x0UL
#define CKA_TOKEN 0x1UL
#define CKA_TRUSTED 0x86UL
#define CKA_SENSITIVE 0x103UL
#define CKA_VALUE_LEN 0x161UL
#define CKA_EXTRACTABLE 0x162UL
#define CKA_WRAP_WITH_TRUSTED 0x210UL
#define CKO_SECRET_KEY 4UL

enum function {
#define INDEX(name, parameters, arguments) FN_##name,
    CK_FUNCTIONS(INDEX)
#undef INDEX
    FUNCTIONS
};

enum action {
    PASS,
    ANSWER,          /* rv, without asking the real module */
    ANSWER_AFTER,    /* ask it, then say rv all the same */
    HANG,            /* for ever */
    CRASH,           /* the process, by SIGSEGV */
    CRASH_AFTER,     /* when the real module has done it */
    ANSWER_TILL_FIND /* rv until objects are searched for: a stale handle */
};

struct fault {
    uint32_t action;
    uint32_t rv;
    uint32_t skip;  /* this many calls pass first */
    uint32_t times; /* then it happens so often; 0: always */
};

enum iv_source { IV_CALLER, IV_BUFFER, IV_HEAD, IV_TAIL };
enum value_len { VALUE_LEN_ANY, VALUE_LEN_WANTED, VALUE_LEN_REFUSED };

struct control {
    struct fault fault[FUNCTIONS];
    _Atomic uint32_t calls[FUNCTIONS];
    /* How this provider differs from the real one behind it; 0 is "not at all". */
    uint32_t wrap_mechanism;
    uint32_t gcm_mechanism;
    uint32_t iv_source;
    uint32_t gcm_limit;     /* most bytes of plaintext in one call */
    uint32_t value_len;     /* on C_UnwrapKey */
    uint32_t session_limit;
    uint32_t pin_tries;     /* wrong ones until it locks */
    uint32_t ignore_hidden; /* C_UnwrapKey makes readable keys whatever is asked */
    uint32_t no_unwrap_template;
    uint32_t cannot_lock;
    uint32_t trusted_keks; /* the crypto officer has marked every KEK on the token */
    /* Raised by the test: all sessions end, and the login with them. */
    _Atomic uint32_t expire;
    /* Starts and ends of the daemon behind this module, by the test: odd while it is dead. What was initialised with one
     * does not work with the next. */
    _Atomic uint32_t daemon;
    /* Seen here. */
    _Atomic uint32_t expired;
    _Atomic uint32_t sessions;
    _Atomic uint32_t wrong_pins; /* survives the process, as in a token */
    _Atomic uint32_t overlapped; /* two calls at once on one session, or at all where it cannot lock */
    _Atomic uint32_t trusted_only; /* keys made that ask to be wrapped under trusted keys alone */
};

static CK_FUNCTION_LIST *real;
static struct control *control;
static CK_SLOT_ID slot_in_use;
static _Atomic uint32_t daemon_in_use;
static _Atomic int single_threaded;
static atomic_int inside;
/* Read by calls, written by what ends all sessions: that happens between calls, for SoftHSM crashes when it is in one. */
static pthread_rwlock_t calls_lock = PTHREAD_RWLOCK_INITIALIZER;

/* --- which calls run ----------------------------------------------------------------------------------------------- */

#define TRACKED 256 /* sessions that are watched for overlap and half-done GCM operations */

struct operation {
    CK_SESSION_HANDLE session;
    CK_BYTE *iv_out; /* where to write the IV we made */
    CK_BYTE iv[12];
    CK_OBJECT_HANDLE key; /* of a decryption whose IV comes with the data */
    CK_BYTE aad[8192];
    CK_ULONG aad_len;
    int waiting; /* it is one */
    CK_OBJECT_HANDLE trusted_only; /* the newest key made here that asks to be wrapped under trusted keys alone */
    atomic_int busy;
};

static struct operation operations[TRACKED];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static struct operation *operation_of(CK_SESSION_HANDLE session) {
    struct operation *found = NULL;
    size_t i;

    pthread_mutex_lock(&table_lock);
    for (i = 0; i < TRACKED && found == NULL; i++) {
        if (operations[i].session == session || operations[i].session == 0) {
            found = &operations[i];
            found->session = session;
        }
    }
    pthread_mutex_unlock(&table_lock);
    if (found == NULL) {
        abort(); /* a test that opens more must raise TRACKED */
    }
    return found;
}

static void forget_sessions(void) {
    size_t i;

    pthread_mutex_lock(&table_lock);
    for (i = 0; i < TRACKED; i++) {
        operations[i].session = 0;
        operations[i].waiting = 0;
        operations[i].iv_out = NULL;
        operations[i].trusted_only = 0;
    }
    pthread_mutex_unlock(&table_lock);
    atomic_store(&control->sessions, 0);
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

static void crash(void) {
    *(volatile int *)0 = 0; /* NOLINT: what a broken module does */
    abort();
}

/* 1 and *rv when the real module is not to be asked. *after says what happens once it has been. */
static int before_call(enum function fn, CK_RV *rv, enum action *after) {
    struct fault *fault = &control->fault[fn];

    *after = PASS;
    atomic_fetch_add(&control->calls[fn], 1);
    if (fn == FN_C_FindObjectsInit) {
        size_t i;
        for (i = 0; i < FUNCTIONS; i++) {
            if (control->fault[i].action == ANSWER_TILL_FIND) {
                control->fault[i].action = PASS;
            }
        }
    }
    if (atomic_load(&control->expire) != atomic_load(&control->expired)) {
        pthread_rwlock_wrlock(&calls_lock);
        if (atomic_load(&control->expire) != atomic_load(&control->expired)) {
            atomic_store(&control->expired, atomic_load(&control->expire));
            real->C_CloseAllSessions(slot_in_use);
            forget_sessions();
        }
        pthread_rwlock_unlock(&calls_lock);
    }
    if (fn != FN_C_Finalize && fn != FN_C_GetFunctionList &&
        (fn == FN_C_Initialize ? atomic_load(&control->daemon) % 2 != 0
                               : atomic_load(&control->daemon) != atomic_load(&daemon_in_use))) {
        *rv = CKR_DEVICE_ERROR;
        return 1;
    }
    if (fault->action == PASS) {
        return 0;
    }
    if (fault->skip > 0) {
        fault->skip--;
        return 0;
    }
    enum action now = (enum action)fault->action;
    *rv = fault->rv;
    if (fault->times > 0 && --fault->times == 0) {
        fault->action = PASS;
    }
    switch (now) {
    case HANG:
        for (;;) {
            pause();
        }
    case CRASH:
        crash();
        break;
    case ANSWER_AFTER:
    case CRASH_AFTER:
        *after = now;
        return 0;
    case PASS:
    case ANSWER:
    case ANSWER_TILL_FIND:
        break;
    }
    return 1;
}

static CK_RV after_call(enum action after, CK_RV injected, CK_RV answered) {
    if (after == CRASH_AFTER) {
        crash();
    }
    return after == ANSWER_AFTER ? injected : answered;
}

static void enter(void) {
    if (atomic_fetch_add(&inside, 1) > 0 && atomic_load(&single_threaded)) {
        atomic_fetch_add(&control->overlapped, 1);
    }
}

static void leave(void) {
    atomic_fetch_sub(&inside, 1);
}

/* One session, one call at a time: counted where the long calls are. */
static void session_enter(struct operation *op) {
    if (atomic_fetch_add(&op->busy, 1) > 0) {
        atomic_fetch_add(&control->overlapped, 1);
    }
}

static void session_leave(struct operation *op) {
    atomic_fetch_sub(&op->busy, 1);
}

/* --- quirks -------------------------------------------------------------------------------------------------------- */

static CK_RV quirk_C_Initialize(void *args) {
    CK_C_INITIALIZE_ARGS *init = args;
    CK_C_INITIALIZE_ARGS locking = {0};
    CK_RV rv;

    if (control->cannot_lock && init != NULL && (init->flags & CKF_OS_LOCKING_OK)) {
        return CKR_CANT_LOCK;
    }
    /* What is behind is made safe whatever the caller says, so that a caller's mistake is counted and does not crash. */
    locking.flags = CKF_OS_LOCKING_OK;
    rv = real->C_Initialize(&locking);
    if (rv == CKR_OK) {
        atomic_store(&daemon_in_use, atomic_load(&control->daemon));
        atomic_store(&single_threaded, init == NULL || !(init->flags & CKF_OS_LOCKING_OK));
        forget_sessions();
    }
    return rv;
}

static CK_RV quirk_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *s) {
    CK_RV rv;

    if (control->session_limit && atomic_load(&control->sessions) >= control->session_limit) {
        return CKR_SESSION_COUNT;
    }
    slot_in_use = slot;
    rv = real->C_OpenSession(slot, flags, app, notify, s);
    if (rv == CKR_OK) {
        atomic_fetch_add(&control->sessions, 1);
    }
    return rv;
}

static CK_RV quirk_C_CloseSession(CK_SESSION_HANDLE s) {
    CK_RV rv = real->C_CloseSession(s);

    if (rv == CKR_OK) {
        struct operation *op = operation_of(s);
        atomic_fetch_sub(&control->sessions, 1);
        op->waiting = 0;
        op->iv_out = NULL;
    }
    return rv;
}

static CK_RV quirk_C_Login(CK_SESSION_HANDLE s, CK_ULONG user, CK_BYTE *pin, CK_ULONG len) {
    CK_RV rv;

    if (control->pin_tries && atomic_load(&control->wrong_pins) >= control->pin_tries) {
        return CKR_PIN_LOCKED;
    }
    rv = real->C_Login(s, user, pin, len);
    if (rv == CKR_PIN_INCORRECT) {
        atomic_fetch_add(&control->wrong_pins, 1);
    } else if (rv == CKR_OK) {
        atomic_store(&control->wrong_pins, 0);
    }
    return rv;
}

/* The mechanism as the real module knows it; 0 when this provider does not. */
static int renamed(CK_MECHANISM *out, const CK_MECHANISM *in, CK_MECHANISM_TYPE standard, uint32_t vendor) {
    *out = *in;
    if (vendor != 0 && in->mechanism == standard) {
        return 0;
    }
    if (vendor != 0 && in->mechanism == vendor) {
        out->mechanism = standard;
    }
    return 1;
}

static CK_RV quirk_C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *types, CK_ULONG *count) {
    CK_RV rv = real->C_GetMechanismList(slot, types, count);
    CK_ULONG i;

    for (i = 0; rv == CKR_OK && types != NULL && i < *count; i++) {
        if (types[i] == CKM_AES_KEY_WRAP && control->wrap_mechanism) {
            types[i] = control->wrap_mechanism;
        }
        if (types[i] == CKM_AES_GCM && control->gcm_mechanism) {
            types[i] = control->gcm_mechanism;
        }
    }
    return rv;
}

/* What is behind lets the security officer alone mark a key, who does not see private ones: so it is said here which are,
 * and the rule about them is kept here. */
static int is_trusted(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE k) {
    CK_ULONG class = 0;
    CK_BBOOL token = CK_FALSE;
    CK_ATTRIBUTE is[2] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_TOKEN, &token, sizeof(token)}};

    return control->trusted_keks && real->C_GetAttributeValue(s, k, is, 2) == CKR_OK && class == CKO_SECRET_KEY &&
           token == CK_TRUE;
}

static CK_RV quirk_C_GetAttributeValue(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE k, CK_ATTRIBUTE *t, CK_ULONG n) {
    CK_RV rv = real->C_GetAttributeValue(s, k, t, n);
    CK_ULONG i;

    for (i = 0; rv == CKR_OK && i < n; i++) {
        if (t[i].type == CKA_TRUSTED && t[i].pValue != NULL && t[i].ulValueLen == 1 && is_trusted(s, k)) {
            *(CK_BBOOL *)t[i].pValue = CK_TRUE;
        }
    }
    return rv;
}

static CK_RV quirk_C_GenerateKey(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n,
                                 CK_OBJECT_HANDLE *k) {
    CK_ATTRIBUTE kept[64];
    CK_ULONG i, used = 0;
    int trusted_only = 0;
    CK_RV rv;

    if (n > 64) {
        return CKR_ARGUMENTS_BAD;
    }
    for (i = 0; i < n; i++) {
        if (t[i].type == CKA_WRAP_WITH_TRUSTED) {
            trusted_only = *(CK_BBOOL *)t[i].pValue == CK_TRUE;
        } else if (!control->no_unwrap_template || t[i].type != CKA_UNWRAP_TEMPLATE) {
            kept[used++] = t[i];
        }
    }
    rv = real->C_GenerateKey(s, m, kept, used, k);
    if (rv == CKR_OK && trusted_only) {
        atomic_fetch_add(&control->trusted_only, 1);
        operation_of(s)->trusted_only = *k;
    }
    return rv;
}

static CK_RV quirk_C_WrapKey(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE k,
                             CK_BYTE *out, CK_ULONG *out_len) {
    CK_MECHANISM own;

    if (!renamed(&own, m, CKM_AES_KEY_WRAP, control->wrap_mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    if (operation_of(s)->trusted_only == k && !is_trusted(s, wrapping)) {
        return CKR_KEY_NOT_WRAPPABLE;
    }
    return real->C_WrapKey(s, &own, wrapping, k, out, out_len);
}

static CK_RV quirk_C_UnwrapKey(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE unwrapping, CK_BYTE *in,
                               CK_ULONG in_len, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *k) {
    static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE kept[64];
    CK_MECHANISM own;
    CK_ULONG i, used = 0;
    int value_len = 0;
    CK_RV rv;

    if (!renamed(&own, m, CKM_AES_KEY_WRAP, control->wrap_mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    if (n > 64) {
        return CKR_ARGUMENTS_BAD;
    }
    for (i = 0; i < n; i++) {
        CK_ATTRIBUTE attribute = t[i];
        if (attribute.type == CKA_VALUE_LEN) {
            value_len = 1;
            continue; /* the one behind this would refuse it */
        }
        if (control->ignore_hidden && attribute.type == CKA_SENSITIVE) {
            attribute.pValue = &no;
        }
        if (control->ignore_hidden && attribute.type == CKA_EXTRACTABLE) {
            attribute.pValue = &yes;
        }
        kept[used++] = attribute;
    }
    if (control->value_len == VALUE_LEN_WANTED && !value_len) {
        return CKR_TEMPLATE_INCOMPLETE;
    }
    if (control->value_len == VALUE_LEN_REFUSED && value_len) {
        return CKR_TEMPLATE_INCONSISTENT;
    }
    session_enter(operation_of(s));
    rv = real->C_UnwrapKey(s, &own, unwrapping, in, in_len, kept, used, k);
    session_leave(operation_of(s));
    return rv;
}

/* IV of 16 bytes: the real module takes 12, so the last four are their checksum, and must come back as they were. */
static void tail_of(const CK_BYTE iv[12], CK_BYTE tail[4]) {
    size_t i;

    memset(tail, 0xA5, 4);
    for (i = 0; i < 12; i++) {
        tail[i % 4] ^= iv[i];
    }
}

static int all_zero(const CK_BYTE *bytes, CK_ULONG len) {
    CK_BYTE any = 0;

    while (len > 0) {
        any |= bytes[--len];
    }
    return any == 0;
}

static CK_RV quirk_C_EncryptInit(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k) {
    CK_MECHANISM own;
    CK_GCM_PARAMS gcm;
    struct operation *op = operation_of(s);

    if (!renamed(&own, m, CKM_AES_GCM, control->gcm_mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    op->iv_out = NULL;
    if (own.mechanism != CKM_AES_GCM || control->iv_source == IV_CALLER) {
        return real->C_EncryptInit(s, &own, k);
    }
    memcpy(&gcm, own.pParameter, sizeof(gcm));
    if (gcm.ulIvLen != 12 || gcm.ulIvBits != 96 || !all_zero(gcm.pIv, 12)) {
        return CKR_MECHANISM_PARAM_INVALID; /* the caller chose an IV, or gave no room */
    }
    if (real->C_GenerateRandom(s, op->iv, sizeof(op->iv)) != CKR_OK) {
        return CKR_FUNCTION_FAILED;
    }
    op->iv_out = gcm.pIv;
    gcm.pIv = op->iv;
    own.pParameter = &gcm;
    return real->C_EncryptInit(s, &own, k);
}

static CK_RV quirk_C_Encrypt(CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len) {
    struct operation *op = operation_of(s);
    const CK_ULONG before = op->iv_out != NULL && control->iv_source == IV_HEAD ? 12 : 0;
    const CK_ULONG behind = op->iv_out != NULL && control->iv_source == IV_TAIL ? 16 : 0;
    CK_ULONG room = *out_len - before - behind;
    CK_RV rv;

    if (control->gcm_limit && in_len > control->gcm_limit) {
        return CKR_DATA_LEN_RANGE;
    }
    if (*out_len < before + behind) {
        return CKR_BUFFER_TOO_SMALL;
    }
    session_enter(op);
    rv = real->C_Encrypt(s, in, in_len, out + before, &room);
    session_leave(op);
    if (rv != CKR_OK || op->iv_out == NULL) {
        *out_len = room;
        return rv;
    }
    if (control->iv_source == IV_BUFFER) {
        memcpy(op->iv_out, op->iv, sizeof(op->iv));
    }
    memcpy(out, op->iv, before);
    if (behind > 0) {
        memcpy(out + before + room, op->iv, sizeof(op->iv));
        tail_of(op->iv, out + before + room + sizeof(op->iv));
    }
    *out_len = before + room + behind;
    return CKR_OK;
}

static CK_RV quirk_C_DecryptInit(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k) {
    CK_MECHANISM own;
    CK_GCM_PARAMS gcm;
    CK_BYTE tail[4];
    struct operation *op = operation_of(s);

    if (!renamed(&own, m, CKM_AES_GCM, control->gcm_mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    op->waiting = 0;
    if (own.mechanism != CKM_AES_GCM || control->iv_source == IV_CALLER || control->iv_source == IV_BUFFER) {
        return real->C_DecryptInit(s, &own, k);
    }
    memcpy(&gcm, own.pParameter, sizeof(gcm));
    own.pParameter = &gcm;
    if (control->iv_source == IV_TAIL) {
        if (gcm.ulIvLen != 16 || gcm.ulIvBits != 128) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        tail_of(gcm.pIv, tail);
        if (memcmp(tail, gcm.pIv + 12, sizeof(tail)) != 0) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        gcm.ulIvLen = 12;
        gcm.ulIvBits = 96;
        return real->C_DecryptInit(s, &own, k);
    }
    if (gcm.ulAADLen > sizeof(op->aad)) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    memcpy(op->aad, gcm.pAAD, gcm.ulAADLen);
    op->aad_len = gcm.ulAADLen;
    op->key = k;
    op->waiting = 1;
    return CKR_OK;
}

static CK_RV quirk_C_Decrypt(CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len) {
    struct operation *op = operation_of(s);
    CK_RV rv;

    if (op->waiting) {
        CK_GCM_PARAMS gcm = {op->iv, 12, 96, op->aad, op->aad_len, 128};
        CK_MECHANISM own = {CKM_AES_GCM, &gcm, sizeof(gcm)};
        op->waiting = 0;
        if (in_len < 28) {
            return CKR_ENCRYPTED_DATA_LEN_RANGE;
        }
        memcpy(op->iv, in, 12);
        in += 12;
        in_len -= 12;
        rv = real->C_DecryptInit(s, &own, op->key);
        if (rv != CKR_OK) {
            return rv;
        }
    }
    if (control->gcm_limit && in_len > control->gcm_limit + 16) {
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    }
    session_enter(op);
    rv = real->C_Decrypt(s, in, in_len, out, out_len);
    session_leave(op);
    return rv;
}

/* --- the module ------------------------------------------------------------------------------------------------------ */

static CK_FUNCTION_LIST route; /* the real functions, and the quirks in their places */
static CK_FUNCTION_LIST outer; /* what the caller gets */

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list);

static CK_RV quirk_C_GetFunctionList(CK_FUNCTION_LIST **list) {
    return C_GetFunctionList(list);
}

/* Every call: the fault first, then the quirk or the real function, then what the fault says of afterwards. */
#define OUTER(name, parameters, arguments)                                                                             \
    static CK_RV outer_##name parameters {                                                                             \
        enum action after;                                                                                             \
        CK_RV rv, answered;                                                                                            \
        enter();                                                                                                       \
        if (!before_call(FN_##name, &rv, &after)) {                                                                    \
            pthread_rwlock_rdlock(&calls_lock);                                                                        \
            answered = route.name arguments;                                                                           \
            pthread_rwlock_unlock(&calls_lock);                                                                        \
            rv = after_call(after, rv, answered);                                                                      \
        }                                                                                                              \
        leave();                                                                                                       \
        return rv;                                                                                                     \
    }
CK_FUNCTIONS(OUTER)
#undef OUTER

static void load(void) {
    const char *target = getenv("TSSD_FAULT_TARGET"), *file = getenv("TSSD_FAULT_CONTROL");
    CK_RV (*get_function_list)(CK_FUNCTION_LIST **) = NULL;
    void *library = target == NULL ? NULL : dlopen(target, RTLD_NOW | RTLD_LOCAL);
    int fd = file == NULL ? -1 : open(file, O_RDWR | O_CLOEXEC);

    if (library == NULL || fd < 0) {
        return;
    }
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    *(void **)(&get_function_list) = dlsym(library, "C_GetFunctionList");
    if (control == MAP_FAILED || get_function_list == NULL || get_function_list(&real) != CKR_OK) {
        real = NULL;
        return;
    }
    route = *real;
    route.C_Initialize = quirk_C_Initialize;
    route.C_GetFunctionList = quirk_C_GetFunctionList;
    route.C_GetMechanismList = quirk_C_GetMechanismList;
    route.C_OpenSession = quirk_C_OpenSession;
    route.C_CloseSession = quirk_C_CloseSession;
    route.C_Login = quirk_C_Login;
    route.C_GetAttributeValue = quirk_C_GetAttributeValue;
    route.C_GenerateKey = quirk_C_GenerateKey;
    route.C_WrapKey = quirk_C_WrapKey;
    route.C_UnwrapKey = quirk_C_UnwrapKey;
    route.C_EncryptInit = quirk_C_EncryptInit;
    route.C_Encrypt = quirk_C_Encrypt;
    route.C_DecryptInit = quirk_C_DecryptInit;
    route.C_Decrypt = quirk_C_Decrypt;
    outer.version = real->version;
#define PLACE(name, parameters, arguments) outer.name = outer_##name;
    CK_FUNCTIONS(PLACE)
#undef PLACE
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    if (real == NULL) {
        return CKR_FUNCTION_FAILED;
    }
    *list = &outer;
    return CKR_OK;
}
