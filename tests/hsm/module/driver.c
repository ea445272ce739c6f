/* Every function of pkcs11_direct.c once in good use and in each misuse, on a real token, for sanitizers and valgrind.
 *
 *     driver MODULE PIN_FILE IV_SOURCE
 *
 * The token is the first one found and must be initialised. Exit status 0: all as promised; else the line that was not.
 */
#define _GNU_SOURCE
#include "pkcs11_direct.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "driver.c:%d: %s\n", __LINE__, #condition);                                                \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { SIZE = 2 * HSM_CHUNK_MAX + 100, CHUNKS = 3 };

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static CK_ULONG secret_key = 4, aes = 0x1F, key_bytes = 32;

static CK_ATTRIBUTE kek_template[] = {
    {0x0, &secret_key, sizeof(secret_key)}, {0x100, &aes, sizeof(aes)}, {0x161, &key_bytes, sizeof(key_bytes)},
    {0x1, &no, 1},  {0x2, &yes, 1},   {0x103, &yes, 1}, {0x162, &no, 1}, {0x106, &yes, 1}, {0x107, &yes, 1}};
static CK_ATTRIBUTE share_template[] = {
    {0x0, &secret_key, sizeof(secret_key)}, {0x100, &aes, sizeof(aes)}, {0x161, &key_bytes, sizeof(key_bytes)},
    {0x1, &no, 1},  {0x2, &yes, 1},   {0x103, &yes, 1}, {0x162, &yes, 1}, {0x104, &yes, 1}};
static CK_ATTRIBUTE opened_template[] = {
    {0x0, &secret_key, sizeof(secret_key)}, {0x100, &aes, sizeof(aes)}, {0x1, &no, 1}, {0x2, &yes, 1},
    {0x103, &yes, 1}, {0x162, &no, 1}, {0x105, &yes, 1}};

static uint8_t bodies[CHUNKS][HSM_CHUNK_MAX];

static void lay_out(hsm_chunk chunks[CHUNKS]) {
    size_t i;

    memset(chunks, 0, CHUNKS * sizeof(*chunks));
    for (i = 0; i < CHUNKS; i++) {
        chunks[i].data = bodies[i];
        chunks[i].data_len = i + 1 < CHUNKS ? HSM_CHUNK_MAX : 100;
        chunks[i].iv_len = 12;
        chunks[i].iv[0] = 1;
        chunks[i].iv[11] = (uint8_t)i;
    }
}

static int all_zero(const uint8_t *bytes, size_t len) {
    while (len > 0) {
        if (bytes[--len] != 0) {
            return 0;
        }
    }
    return 1;
}

static void pins(const char *file) {
    int ends[2];
    char long_pin[300];

    EXPECT(hsm_pin_read(-1) == NULL && errno == EBADF);
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    EXPECT(write(ends[1], "\n1234", 5) == 5);
    EXPECT(hsm_pin_read(ends[0]) == NULL && errno == ENODATA);
    memset(long_pin, 'x', sizeof(long_pin));
    EXPECT(write(ends[1], long_pin, sizeof(long_pin)) == sizeof(long_pin));
    EXPECT(hsm_pin_read(ends[0]) == NULL && errno == EMSGSIZE);
    close(ends[0]);
    close(ends[1]);
    EXPECT(hsm_pin_ask(file, "PIN: ") == NULL); /* no terminal */
    hsm_pin_free(NULL);
}

static void find_and_read(hsm_module *m, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE kek) {
    CK_ATTRIBUTE any[] = {{0x0, &secret_key, sizeof(secret_key)}};
    CK_ULONG type = 0, handles[2], found = 9, state = 0;
    CK_ATTRIBUTE read = {0x100, &type, sizeof(type)}, value = {0x11, NULL, 0}, change = {0x162, &yes, 1};
    CK_OBJECT_HANDLE copy;
    const char *call = NULL;
    uint8_t out[64];

    EXPECT(hsm_find(m, s, any, 1, handles, 2, &found, &call) == CKR_OK && found >= 1);
    EXPECT(hsm_find(m, s, any, 1, handles, 1, &found, &call) == CKR_OK && found == 1);
    EXPECT(hsm_find(m, 0, any, 1, handles, 1, &found, &call) != CKR_OK && found == 0 && call != NULL);
    EXPECT(hsm_get_attributes(m, s, kek, &read, 1) == CKR_OK && type == aes);
    EXPECT(hsm_get_attributes(m, s, kek, &value, 1) != CKR_OK);
    EXPECT(hsm_set_attributes(m, s, kek, &change, 1) != CKR_OK);
    EXPECT(hsm_copy_object(m, s, kek, &change, 1, &copy) != CKR_OK);
    EXPECT(hsm_session_state(m, s, &state) == CKR_OK && state == 3);
    EXPECT(hsm_session_state(m, 0, &state) != CKR_OK);
    EXPECT(hsm_random(m, s, out, sizeof(out)) == CKR_OK);
    EXPECT(hsm_sign_p256(m, s, kek, out, out) != CKR_OK); /* no signing key */
}

static void seal_and_open(hsm_module *m, CK_SESSION_HANDLE s, const hsm_suite *suite, CK_OBJECT_HANDLE kek) {
    static uint8_t plain[SIZE], opened[SIZE], aad[HSM_AAD_MAX + 1];
    uint8_t wrapped[HSM_WRAPPED_KEY_BYTES], recovery[HSM_RSA_MAX];
    unsigned long recovery_len = 0, room = sizeof(recovery);
    hsm_chunk chunks[CHUNKS], other[CHUNKS];
    CK_OBJECT_HANDLE key, again;
    const char *call = NULL;
    size_t i;

    for (i = 0; i < SIZE; i++) {
        plain[i] = (uint8_t)(i * 7 + 1);
    }
    lay_out(chunks);
    EXPECT(hsm_make_share_key(m, s, suite, 0, 0, &key, wrapped, recovery, &recovery_len, &call) != CKR_OK);
    EXPECT(hsm_make_share_key(m, s, suite, kek, 0, &key, wrapped, recovery, &recovery_len, &call) == CKR_OK);
    EXPECT(hsm_wrap(m, s, suite->wrap_mechanism, kek, key, recovery, &room) == CKR_OK && room == 40);
    EXPECT(memcmp(recovery, wrapped, sizeof(wrapped)) == 0); /* RFC 3394 is deterministic */

    EXPECT(hsm_encrypt(m, s, suite, key, plain, SIZE, aad, HSM_AAD_MAX + 1, chunks, CHUNKS, &call) == HSM_RV_MISUSE);
    EXPECT(hsm_encrypt(m, s, suite, key, plain, SIZE - 1, aad, 9, chunks, CHUNKS, &call) == HSM_RV_MISUSE);
    EXPECT(hsm_encrypt(m, s, suite, key, plain, SIZE + 1, aad, 9, chunks, CHUNKS, &call) == HSM_RV_MISUSE);
    EXPECT(hsm_encrypt(m, s, suite, key, plain, 0, aad, 9, chunks, 0, &call) == HSM_RV_MISUSE);
    EXPECT(hsm_encrypt(m, s, suite, 0, plain, SIZE, aad, 9, chunks, CHUNKS, &call) != CKR_OK);
    lay_out(chunks);
    chunks[1].data_len = HSM_CHUNK_MAX + 1;
    EXPECT(hsm_encrypt(m, s, suite, key, plain, SIZE + 1, aad, 9, chunks, CHUNKS, &call) == HSM_RV_MISUSE);
    lay_out(chunks);
    EXPECT(hsm_encrypt(m, s, suite, key, plain, SIZE, aad, HSM_AAD_MAX, chunks, CHUNKS, &call) == CKR_OK);
    EXPECT(hsm_destroy_object(m, s, key) == CKR_OK);
    EXPECT(hsm_destroy_object(m, s, key) != CKR_OK);

    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX, chunks, CHUNKS, opened, SIZE, &call) == CKR_OK);
    EXPECT(memcmp(opened, plain, SIZE) == 0);
    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX - 1, chunks, CHUNKS, opened, SIZE, &call) != CKR_OK);
    EXPECT(all_zero(opened, SIZE));
    memset(opened, 1, SIZE);
    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX, chunks, CHUNKS, opened, SIZE - 1, &call) ==
           HSM_RV_MISUSE);
    EXPECT(all_zero(opened, SIZE - 1) && opened[SIZE - 1] == 1);
    memcpy(other, chunks, sizeof(other));
    other[0].iv_len = HSM_IV_MAX + 1;
    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX, other, CHUNKS, opened, SIZE, &call) ==
           HSM_RV_MISUSE);
    memcpy(other, chunks, sizeof(other));
    other[2].tag[15] ^= 1;
    memset(opened, 1, SIZE);
    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX, other, CHUNKS, opened, SIZE, &call) != CKR_OK);
    EXPECT(all_zero(opened, SIZE));
    wrapped[0] ^= 1;
    EXPECT(hsm_open(m, s, suite, kek, wrapped, aad, HSM_AAD_MAX, chunks, CHUNKS, opened, SIZE, &call) != CKR_OK);
    wrapped[0] ^= 1;
    EXPECT(hsm_unwrap(m, s, suite->wrap_mechanism, kek, wrapped, HSM_RSA_MAX + 1, opened_template, 7, &again) ==
           HSM_RV_MISUSE);
    EXPECT(hsm_unwrap(m, s, suite->wrap_mechanism, kek, wrapped, sizeof(wrapped), opened_template, 7, &again) ==
           CKR_OK);
    EXPECT(hsm_destroy_object(m, s, again) == CKR_OK);
}

int main(int argc, char **argv) {
    int fd, locks;
    hsm_module *m;
    hsm_pin *pin;
    CK_FUNCTION_LIST *f;
    CK_RV (*get_function_list)(CK_FUNCTION_LIST **);
    CK_SLOT_ID slots[8];
    CK_ULONG count = 8;
    CK_SESSION_HANDLE s;
    CK_OBJECT_HANDLE kek, made;

    EXPECT(argc == 4);
    hsm_suite suite = {.wrap_mechanism = 0x2109,
                       .gcm_mechanism = 0x1087,
                       .iv_source = atoi(argv[3]),
                       .share_key = share_template,
                       .share_key_count = 8,
                       .opened_key = opened_template,
                       .opened_key_count = 7};
    pins(argv[2]);
    EXPECT(hsm_module_open("/nonexistent.so") == NULL);
    EXPECT(hsm_module_open("libc.so.6") == NULL);
    m = hsm_module_open(argv[1]);
    EXPECT(m != NULL);
    EXPECT(hsm_initialize(m, NULL, &locks) == CKR_OK && locks == 1);
    EXPECT(hsm_initialize(m, NULL, &locks) == CKR_OK && locks == 1); /* finalises first */
    *(void **)(&get_function_list) = dlsym(dlopen(argv[1], RTLD_NOW), "C_GetFunctionList");
    EXPECT(get_function_list(&f) == CKR_OK);
    EXPECT(f->C_GetSlotList(CK_TRUE, slots, &count) == CKR_OK && count > 0);
    EXPECT(f->C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s) == CKR_OK);
    fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    pin = hsm_pin_read(fd);
    EXPECT(pin != NULL);
    close(fd);
    EXPECT(hsm_login(m, s, pin) == CKR_OK);
    hsm_pin_free(pin);
    EXPECT(hsm_generate_key(m, s, CKM_AES_KEY_GEN, kek_template, 9, &kek) == CKR_OK);
    EXPECT(hsm_create_object(m, s, kek_template, 9, &made) != CKR_OK); /* it has no value */
    find_and_read(m, s, kek);
    seal_and_open(m, s, &suite, kek);
    EXPECT(f->C_CloseSession(s) == CKR_OK);
    EXPECT(hsm_finalize(m) == CKR_OK);
    EXPECT(hsm_finalize(m) == CKR_CRYPTOKI_NOT_INITIALIZED);
    hsm_module_close(m);
    return 0;
}
