/* See _direct.cdef.h for what each function promises. */
#define _GNU_SOURCE
#include "pkcs11_direct.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

struct hsm_module {
    void *library;
    CK_FUNCTION_LIST *f;
};

/* --- module ------------------------------------------------------------------------------------------------------ */

hsm_module *hsm_module_open(const char *path) {
    CK_RV (*get_function_list)(CK_FUNCTION_LIST **) = NULL;
    hsm_module *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        return NULL;
    }
    m->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (m->library != NULL) {
        /* POSIX's own way of turning dlsym's object pointer into a function pointer. */
        *(void **)(&get_function_list) = dlsym(m->library, "C_GetFunctionList");
    }
    if (get_function_list == NULL || get_function_list(&m->f) != CKR_OK || m->f == NULL) {
        hsm_module_close(m);
        return NULL;
    }
    return m;
}

void hsm_module_close(hsm_module *m) {
    if (m->library != NULL) {
        dlclose(m->library);
    }
    free(m);
}

unsigned long hsm_initialize(hsm_module *m, const char *reserved, int *locks) {
    /* NSS has one more pointer behind pReserved and wants it NULL; others never look there. */
    struct {
        CK_C_INITIALIZE_ARGS args;
        void *nss_reserved;
    } init;
    CK_RV rv = m->f->C_Finalize(NULL);

    *locks = 1;
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_NOT_INITIALIZED) {
        return rv;
    }
    memset(&init, 0, sizeof(init));
    init.args.flags = CKF_OS_LOCKING_OK;
    init.args.pReserved = (void *)(uintptr_t)reserved; /* the standard has no const; nobody writes to it */
    rv = m->f->C_Initialize(&init);
    if (rv == CKR_CANT_LOCK) {
        *locks = 0;
        init.args.flags = 0;
        rv = m->f->C_Initialize(&init);
    }
    return rv;
}

unsigned long hsm_finalize(hsm_module *m) {
    return m->f->C_Finalize(NULL);
}

/* --- locked memory ----------------------------------------------------------------------------------------------- */

/* Zeroed, never swapped, dumped or inherited. NULL with errno. */
static void *locked_alloc(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        return NULL;
    }
    if (mlock(memory, size) != 0 || madvise(memory, size, MADV_DONTDUMP) != 0 ||
        madvise(memory, size, MADV_DONTFORK) != 0) {
        int error = errno;
        munmap(memory, size);
        errno = error;
        return NULL;
    }
    return memory;
}

static void locked_free(void *memory, size_t size) {
    if (memory != NULL) {
        explicit_bzero(memory, size);
        munmap(memory, size);
    }
}

/* --- PIN --------------------------------------------------------------------------------------------------------- */

#define PIN_MAX 256

struct hsm_pin {
    CK_ULONG length;
    CK_BYTE text[PIN_MAX + 1]; /* one more, to see that it is too long */
};

void hsm_pin_free(hsm_pin *pin) {
    locked_free(pin, sizeof(*pin));
}

/* A PIN or NULL with errno, from what was read. */
static hsm_pin *pin_finish(hsm_pin *pin, int error) {
    if (error == 0 && pin->length == 0) {
        error = ENODATA;
    }
    if (error == 0 && pin->length > PIN_MAX) {
        error = EMSGSIZE;
    }
    if (error != 0) {
        hsm_pin_free(pin);
        errno = error;
        return NULL;
    }
    return pin;
}

hsm_pin *hsm_pin_read(int fd) {
    hsm_pin *pin = locked_alloc(sizeof(*pin));
    int error = 0;

    if (pin == NULL) {
        return NULL;
    }
    while (pin->length <= PIN_MAX) {
        ssize_t n = read(fd, pin->text + pin->length, sizeof(pin->text) - pin->length);
        CK_BYTE *newline;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            error = errno;
        }
        if (n <= 0) {
            break;
        }
        newline = memchr(pin->text + pin->length, '\n', (size_t)n);
        if (newline != NULL) {
            pin->length = (CK_ULONG)(newline - pin->text);
            break;
        }
        pin->length += (CK_ULONG)n;
    }
    return pin_finish(pin, error);
}

/* One key at a time, so that the terminal's line buffer in the kernel never holds the PIN. 0 or an errno. */
static int pin_type(int tty, hsm_pin *pin) {
    enum { INTERRUPT = 3, END = 4, BACKSPACE = 8, KILL_LINE = 21, DELETE = 127 };

    for (;;) {
        CK_BYTE key;
        ssize_t n = read(tty, &key, 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno;
        }
        if (n == 0 || key == INTERRUPT || key == END) {
            return ECANCELED;
        }
        if (key == '\n' || key == '\r') {
            return 0;
        }
        if (key == BACKSPACE || key == DELETE) {
            pin->length -= pin->length > 0;
        } else if (key == KILL_LINE) {
            pin->length = 0;
        } else if (pin->length > PIN_MAX) {
            return EMSGSIZE;
        } else {
            pin->text[pin->length++] = key;
        }
        explicit_bzero(&key, sizeof(key));
    }
}

hsm_pin *hsm_pin_ask(const char *terminal, const char *prompt) {
    struct termios before, silent;
    hsm_pin *pin;
    int error, tty = open(terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (tty < 0) {
        return NULL;
    }
    pin = locked_alloc(sizeof(*pin));
    if (pin == NULL || tcgetattr(tty, &before) != 0) {
        error = errno;
        hsm_pin_free(pin);
        close(tty);
        errno = error;
        return NULL;
    }
    silent = before;
    /* Without ISIG Ctrl-C comes as a key, and no signal can leave the terminal mute. */
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG);
    error = 0;
    if (tcsetattr(tty, TCSAFLUSH, &silent) != 0 || write(tty, prompt, strlen(prompt)) < 0) {
        error = errno;
    }
    if (error == 0) {
        error = pin_type(tty, pin);
    }
    if ((write(tty, "\n", 1) < 0 || tcsetattr(tty, TCSAFLUSH, &before) != 0) && error == 0) {
        error = errno;
    }
    close(tty);
    return pin_finish(pin, error);
}

unsigned long hsm_login(hsm_module *m, unsigned long session, hsm_pin *pin) {
    return m->f->C_Login(session, CKU_USER, pin->text, pin->length);
}

/* --- objects ----------------------------------------------------------------------------------------------------- */

unsigned long hsm_generate_key(hsm_module *m, unsigned long session, unsigned long mechanism, CK_ATTRIBUTE *template,
                               unsigned long count, unsigned long *key) {
    CK_MECHANISM mech = {mechanism, NULL, 0};
    return m->f->C_GenerateKey(session, &mech, template, count, key);
}

unsigned long hsm_create_object(hsm_module *m, unsigned long session, CK_ATTRIBUTE *template, unsigned long count,
                                unsigned long *object) {
    return m->f->C_CreateObject(session, template, count, object);
}

unsigned long hsm_copy_object(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                              unsigned long count, unsigned long *copy) {
    return m->f->C_CopyObject(session, object, template, count, copy);
}

unsigned long hsm_destroy_object(hsm_module *m, unsigned long session, unsigned long object) {
    return m->f->C_DestroyObject(session, object);
}

unsigned long hsm_find(hsm_module *m, unsigned long session, CK_ATTRIBUTE *template, unsigned long count,
                       unsigned long *objects, unsigned long room, unsigned long *found, const char **call) {
    CK_ULONG more;
    CK_RV rv, ended;

    *found = 0;
    *call = "C_FindObjectsInit";
    rv = m->f->C_FindObjectsInit(session, template, count);
    if (rv != CKR_OK) {
        return rv;
    }
    *call = "C_FindObjects";
    do {
        more = 0;
        rv = m->f->C_FindObjects(session, objects + *found, room - *found, &more);
        *found += rv == CKR_OK ? more : 0;
    } while (rv == CKR_OK && more > 0 && *found < room);
    ended = m->f->C_FindObjectsFinal(session);
    if (rv == CKR_OK && ended != CKR_OK) {
        *call = "C_FindObjectsFinal";
        rv = ended;
    }
    return rv;
}

unsigned long hsm_get_attributes(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                                 unsigned long count) {
    return m->f->C_GetAttributeValue(session, object, template, count);
}

unsigned long hsm_set_attributes(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                                 unsigned long count) {
    return m->f->C_SetAttributeValue(session, object, template, count);
}

unsigned long hsm_wrap(hsm_module *m, unsigned long session, unsigned long mechanism, unsigned long wrapping,
                       unsigned long key, uint8_t *out, unsigned long *len) {
    CK_MECHANISM mech = {mechanism, NULL, 0};
    return m->f->C_WrapKey(session, &mech, wrapping, key, out, len);
}

unsigned long hsm_unwrap(hsm_module *m, unsigned long session, unsigned long mechanism, unsigned long unwrapping,
                         const uint8_t *wrapped, size_t wrapped_len, CK_ATTRIBUTE *template, unsigned long count,
                         unsigned long *key) {
    CK_MECHANISM mech = {mechanism, NULL, 0};
    CK_BYTE copy[HSM_RSA_MAX]; /* the standard's pointer is not const, and the caller's bytes may be shared */

    if (wrapped_len > sizeof(copy)) {
        return HSM_RV_MISUSE;
    }
    memcpy(copy, wrapped, wrapped_len);
    return m->f->C_UnwrapKey(session, &mech, unwrapping, copy, wrapped_len, template, count, key);
}

/* --- use --------------------------------------------------------------------------------------------------------- */

unsigned long hsm_session_state(hsm_module *m, unsigned long session, unsigned long *state) {
    CK_SESSION_INFO info;
    CK_RV rv = m->f->C_GetSessionInfo(session, &info);

    if (rv == CKR_OK) {
        *state = info.state;
    }
    return rv;
}

unsigned long hsm_random(hsm_module *m, unsigned long session, uint8_t *out, size_t len) {
    return m->f->C_GenerateRandom(session, out, len);
}

unsigned long hsm_sign_p256(hsm_module *m, unsigned long session, unsigned long key, const uint8_t *digest32,
                            uint8_t *sig64) {
    CK_MECHANISM mech = {CKM_ECDSA, NULL, 0};
    CK_BYTE digest[32], signature[64];
    CK_ULONG len = sizeof(signature);
    CK_RV rv;

    memcpy(digest, digest32, sizeof(digest));
    rv = m->f->C_SignInit(session, &mech, key);
    if (rv == CKR_OK) {
        rv = m->f->C_Sign(session, digest, sizeof(digest), signature, &len);
    }
    if (rv == CKR_OK && len != sizeof(signature)) {
        rv = HSM_RV_ODD_OUTPUT;
    }
    if (rv == CKR_OK) {
        memcpy(sig64, signature, sizeof(signature));
    }
    return rv;
}

unsigned long hsm_make_share_key(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long kek,
                                 unsigned long recovery_key, unsigned long *key, uint8_t *wrapped40, uint8_t *recovery,
                                 unsigned long *recovery_len, const char **call) {
    CK_RSA_PKCS_OAEP_PARAMS oaep = {suite->oaep_hash, suite->oaep_mgf, CKZ_DATA_SPECIFIED, NULL, 0};
    CK_MECHANISM generate = {CKM_AES_KEY_GEN, NULL, 0};
    CK_MECHANISM wrap = {suite->wrap_mechanism, NULL, 0};
    CK_MECHANISM recover = {CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep)};
    CK_ULONG len = HSM_WRAPPED_KEY_BYTES;
    CK_RV rv;

    *call = "C_GenerateKey";
    rv = m->f->C_GenerateKey(session, &generate, suite->share_key, suite->share_key_count, key);
    if (rv != CKR_OK) {
        return rv;
    }
    *call = "C_WrapKey";
    rv = m->f->C_WrapKey(session, &wrap, kek, *key, wrapped40, &len);
    if (rv == CKR_OK && len != HSM_WRAPPED_KEY_BYTES) {
        rv = HSM_RV_ODD_OUTPUT;
    }
    if (rv == CKR_OK && *recovery_len > 0) {
        *call = "C_WrapKey (recovery)";
        rv = m->f->C_WrapKey(session, &recover, recovery_key, *key, recovery, recovery_len);
    }
    if (rv != CKR_OK) {
        m->f->C_DestroyObject(session, *key); /* the first failure is the one to report */
    }
    return rv;
}

/* Associated data of one chunk: what the caller binds, then which chunk it is, of how many, and whether the last. */
typedef struct {
    CK_BYTE bytes[HSM_AAD_MAX + 9];
    CK_ULONG length;
} chunk_aad;

static void put_u32(CK_BYTE *out, size_t value) {
    out[0] = (CK_BYTE)(value >> 24);
    out[1] = (CK_BYTE)(value >> 16);
    out[2] = (CK_BYTE)(value >> 8);
    out[3] = (CK_BYTE)value;
}

static void aad_trailer(chunk_aad *aad, size_t header_len, size_t index, size_t count) {
    put_u32(aad->bytes + header_len, index);
    put_u32(aad->bytes + header_len + 4, count);
    aad->bytes[header_len + 8] = index + 1 == count;
    aad->length = header_len + 9;
}

/* 1 when the chunks are of legal size, IVs included where we need them, and sum up to total. */
static int chunks_fit(const hsm_chunk *chunks, size_t count, size_t total, int need_iv) {
    size_t i, sum = 0;

    for (i = 0; i < count; i++) {
        if (chunks[i].data_len == 0 || chunks[i].data_len > HSM_CHUNK_MAX || chunks[i].data_len > total - sum ||
            (need_iv && (chunks[i].iv_len == 0 || chunks[i].iv_len > HSM_IV_MAX))) {
            return 0;
        }
        sum += chunks[i].data_len;
    }
    return count > 0 && sum == total;
}

/* Where the parts of a token's output lie, by who made the IV. */
static size_t iv_before(int iv_source) {
    return iv_source == HSM_IV_HEAD ? 12 : 0;
}
static size_t iv_behind(int iv_source) {
    return iv_source == HSM_IV_TAIL ? 16 : 0;
}

unsigned long hsm_encrypt(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long key,
                          const uint8_t *plain, size_t plain_len, const uint8_t *aad, size_t aad_len, hsm_chunk *chunks,
                          size_t count, const char **call) {
    chunk_aad bound;
    const size_t before = iv_before(suite->iv_source), behind = iv_behind(suite->iv_source);
    size_t i, offset = 0;

    *call = "hsm_encrypt";
    if (aad_len > HSM_AAD_MAX || !chunks_fit(chunks, count, plain_len, suite->iv_source == HSM_IV_CALLER)) {
        return HSM_RV_MISUSE;
    }
    memcpy(bound.bytes, aad, aad_len);
    for (i = 0; i < count; i++) {
        hsm_chunk *chunk = &chunks[i];
        CK_BYTE out[12 + HSM_CHUNK_MAX + HSM_TAG_BYTES + 16];
        CK_ULONG out_len = sizeof(out);
        CK_GCM_PARAMS gcm;
        CK_MECHANISM mech = {suite->gcm_mechanism, &gcm, sizeof(gcm)};
        CK_RV rv;

        if (suite->iv_source != HSM_IV_CALLER) {
            /* A buffer to write to. ulIvBits must be right although nothing is in it: Luna 7.8.4 keeps it. */
            memset(chunk->iv, 0, sizeof(chunk->iv));
            chunk->iv_len = 12;
        }
        aad_trailer(&bound, aad_len, i, count);
        gcm = (CK_GCM_PARAMS){chunk->iv, chunk->iv_len, chunk->iv_len * 8, bound.bytes, bound.length,
                              HSM_TAG_BYTES * 8};
        *call = "C_EncryptInit";
        rv = m->f->C_EncryptInit(session, &mech, key);
        if (rv == CKR_OK) {
            *call = "C_Encrypt";
            rv = m->f->C_Encrypt(session, (CK_BYTE *)(uintptr_t)(plain + offset), chunk->data_len, out, &out_len);
        }
        if (rv == CKR_OK && out_len != before + chunk->data_len + HSM_TAG_BYTES + behind) {
            rv = HSM_RV_ODD_OUTPUT;
        }
        if (rv != CKR_OK) {
            return rv;
        }
        memcpy(chunk->data, out + before, chunk->data_len);
        memcpy(chunk->tag, out + before + chunk->data_len, HSM_TAG_BYTES);
        if (before > 0) {
            memcpy(chunk->iv, out, before);
        }
        if (behind > 0) {
            memcpy(chunk->iv, out + before + chunk->data_len + HSM_TAG_BYTES, behind);
            chunk->iv_len = behind;
        }
        offset += chunk->data_len;
    }
    return CKR_OK;
}

/* Decrypt one chunk to out, which has room for room >= data_len bytes. */
static CK_RV decrypt_chunk(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, const hsm_suite *suite, CK_OBJECT_HANDLE key,
                           const hsm_chunk *chunk, chunk_aad *aad, CK_BYTE *out, size_t room, const char **call) {
    const size_t before = iv_before(suite->iv_source);
    CK_BYTE in[12 + HSM_CHUNK_MAX + HSM_TAG_BYTES], iv[HSM_IV_MAX], *scratch = NULL;
    const CK_ULONG in_len = before + chunk->data_len + HSM_TAG_BYTES;
    CK_GCM_PARAMS gcm = {iv, chunk->iv_len, chunk->iv_len * 8, aad->bytes, aad->length, HSM_TAG_BYTES * 8};
    CK_MECHANISM mech = {suite->gcm_mechanism, &gcm, sizeof(gcm)};
    CK_ULONG len = room;
    CK_RV rv;

    memcpy(iv, chunk->iv, sizeof(iv));
    memcpy(in, chunk->iv, before);
    memcpy(in + before, chunk->data, chunk->data_len);
    memcpy(in + before + chunk->data_len, chunk->tag, HSM_TAG_BYTES);
    if (room < in_len) {
        /* The last chunk. Tokens, SoftHSM among them, want room for the tag as well, and the caller has none. */
        scratch = locked_alloc(sizeof(in));
        if (scratch == NULL) {
            *call = "mlock";
            return CKR_HOST_MEMORY;
        }
        len = sizeof(in);
    }
    *call = "C_DecryptInit";
    rv = f->C_DecryptInit(session, &mech, key);
    if (rv == CKR_OK) {
        *call = "C_Decrypt";
        rv = f->C_Decrypt(session, in, in_len, scratch != NULL ? scratch : out, &len);
    }
    if (rv == CKR_OK && len != chunk->data_len) {
        rv = HSM_RV_ODD_OUTPUT;
    }
    if (rv == CKR_OK && scratch != NULL) {
        memcpy(out, scratch, chunk->data_len);
    }
    locked_free(scratch, sizeof(in));
    return rv;
}

unsigned long hsm_open(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long kek,
                       const uint8_t *wrapped40, const uint8_t *aad, size_t aad_len, const hsm_chunk *chunks,
                       size_t count, uint8_t *plain, size_t plain_len, const char **call) {
    chunk_aad bound;
    size_t i, offset = 0;
    unsigned long key;
    CK_RV rv, destroyed;

    explicit_bzero(plain, plain_len);
    *call = "hsm_open";
    if (aad_len > HSM_AAD_MAX || !chunks_fit(chunks, count, plain_len, 1)) {
        return HSM_RV_MISUSE;
    }
    memcpy(bound.bytes, aad, aad_len);
    *call = "C_UnwrapKey";
    rv = hsm_unwrap(m, session, suite->wrap_mechanism, kek, wrapped40, HSM_WRAPPED_KEY_BYTES, suite->opened_key,
                    suite->opened_key_count, &key);
    if (rv != CKR_OK) {
        return rv;
    }
    for (i = 0; i < count && rv == CKR_OK; i++) {
        aad_trailer(&bound, aad_len, i, count);
        rv = decrypt_chunk(m->f, session, suite, key, &chunks[i], &bound, plain + offset, plain_len - offset, call);
        offset += chunks[i].data_len;
    }
    destroyed = m->f->C_DestroyObject(session, key);
    if (rv == CKR_OK && destroyed != CKR_OK) {
        *call = "C_DestroyObject";
        rv = destroyed;
    }
    if (rv != CKR_OK) {
        explicit_bzero(plain, plain_len);
    }
    return rv;
}
