/* The calls that python-pkcs11 cannot make, or cannot make safely. Read by cffi and by pkcs11_direct.c alike, so it has
 * declarations only; CK_ATTRIBUTE comes from cryptoki.h.
 *
 * Every function that talks to the token returns a CK_RV: 0, a CKR code, or one of the two codes below that no token can
 * give. Where a function makes several Cryptoki calls, *call is set to the name of the one that failed (static text).
 * Sessions and keys are Cryptoki handles. A session serves one call at a time; the caller sees to that. Nothing here
 * keeps global state.
 */

enum {
    HSM_KEY_BYTES = 32,          /* a share key: AES-256 */
    HSM_WRAPPED_KEY_BYTES = 40,  /* the same under RFC 3394 */
    HSM_TAG_BYTES = 16,
    HSM_IV_MAX = 16,
    HSM_CHUNK_MAX = 12288,       /* plaintext bytes in one GCM call; CloudHSM refuses more than 16,224 */
    HSM_AAD_MAX = 4096,          /* bytes before the chunk trailer */
    HSM_RSA_MAX = 1024           /* bytes of one OAEP block: RSA-8192 */
};

/* Who makes the IV of a GCM encryption. */
enum {
    HSM_IV_CALLER = 0, /* we do; the token uses what it is given */
    HSM_IV_BUFFER = 1, /* the token, into the parameter's buffer (12 bytes) */
    HSM_IV_HEAD = 2,   /* the token, 12 bytes before the ciphertext */
    HSM_IV_TAIL = 3    /* the token, 16 bytes behind ciphertext and tag */
};

typedef struct hsm_module hsm_module;
typedef struct hsm_pin hsm_pin;

/* How one provider wants to be called; fixed for a connection. */
typedef struct {
    unsigned long wrap_mechanism; /* RFC 3394 with the default IV */
    unsigned long gcm_mechanism;
    unsigned long oaep_hash;      /* CKM_ number of the hash, and the MGF1 that goes with it */
    unsigned long oaep_mgf;
    int iv_source;                /* HSM_IV_... */
    CK_ATTRIBUTE *share_key;      /* template of a new share key: extractable, so that it can be wrapped */
    unsigned long share_key_count;
    CK_ATTRIBUTE *opened_key;     /* template of an unwrapped one: never extractable */
    unsigned long opened_key_count;
} hsm_suite;

typedef struct {
    uint8_t *data; /* ciphertext, as long as the plaintext */
    size_t data_len;
    uint8_t iv[16];
    size_t iv_len;
    uint8_t tag[16];
} hsm_chunk;

/* --- module ------------------------------------------------------------------------------------------------------ */

/** Open a Cryptoki library, the same instance when the process has it already. NULL: it is not one. */
hsm_module *hsm_module_open(const char *path);

/** Let go of it. Does not finalise. */
void hsm_module_close(hsm_module *m);

/** Initialise, finalising first whatever initialised it before, with locking by the operating system.
 *
 *  reserved  text for pReserved (NSS's init string), or NULL
 *  *locks    1: any number of threads may call; 0: the library cannot lock, so one call at a time in the process
 */
unsigned long hsm_initialize(hsm_module *m, const char *reserved, int *locks);
unsigned long hsm_finalize(hsm_module *m);

/* --- PIN --------------------------------------------------------------------------------------------------------- */

/** Read a PIN from a file into locked memory: up to the end or the first newline, 1..256 bytes.
 *  NULL with errno: EMSGSIZE too long, ENODATA empty, or as mmap, mlock, read. */
hsm_pin *hsm_pin_read(int fd);

/** Ask for it on a terminal, without echo. As above; ECANCELED when the operator pressed Ctrl-C or Ctrl-D. */
hsm_pin *hsm_pin_ask(const char *terminal, const char *prompt);

/** Wipe and free. */
void hsm_pin_free(hsm_pin *pin);

unsigned long hsm_login(hsm_module *m, unsigned long session, hsm_pin *pin);

/* --- objects ----------------------------------------------------------------------------------------------------- */

unsigned long hsm_generate_key(hsm_module *m, unsigned long session, unsigned long mechanism, CK_ATTRIBUTE *template,
                               unsigned long count, unsigned long *key);
unsigned long hsm_create_object(hsm_module *m, unsigned long session, CK_ATTRIBUTE *template, unsigned long count,
                                unsigned long *object);
unsigned long hsm_copy_object(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                              unsigned long count, unsigned long *copy);
unsigned long hsm_destroy_object(hsm_module *m, unsigned long session, unsigned long object);

/** All objects that fit a template, at most `room` of them; the search is ended whatever happens in it.
 *  Out: *found, how many `objects` holds. */
unsigned long hsm_find(hsm_module *m, unsigned long session, CK_ATTRIBUTE *template, unsigned long count,
                       unsigned long *objects, unsigned long room, unsigned long *found, const char **call);

/** C_GetAttributeValue as it stands: sizes where pValue is NULL, values otherwise. */
unsigned long hsm_get_attributes(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                                 unsigned long count);
unsigned long hsm_set_attributes(hsm_module *m, unsigned long session, unsigned long object, CK_ATTRIBUTE *template,
                                 unsigned long count);

/** Wrap `key` under `wrapping` by a mechanism without parameter. In/Out: *len, the room in `out`, then what was used. */
unsigned long hsm_wrap(hsm_module *m, unsigned long session, unsigned long mechanism, unsigned long wrapping,
                       unsigned long key, uint8_t *out, unsigned long *len);
unsigned long hsm_unwrap(hsm_module *m, unsigned long session, unsigned long mechanism, unsigned long unwrapping,
                         const uint8_t *wrapped, size_t wrapped_len, CK_ATTRIBUTE *template, unsigned long count,
                         unsigned long *key);

/* --- use --------------------------------------------------------------------------------------------------------- */

/** Out: *state, CKS_ number of the session. */
unsigned long hsm_session_state(hsm_module *m, unsigned long session, unsigned long *state);
unsigned long hsm_random(hsm_module *m, unsigned long session, uint8_t *out, size_t len);

/** Raw ECDSA over a digest. Out: sig, r||s, 64 bytes for P-256. */
unsigned long hsm_sign_p256(hsm_module *m, unsigned long session, unsigned long key, const uint8_t *digest32,
                            uint8_t *sig64);

/** Make a share key in the token and wrap it.
 *
 *  Out: key           session object; the caller destroys it
 *       wrapped40     under `kek`, RFC 3394
 *       recovery      under the RSA key `recovery_key` with OAEP, *recovery_len bytes; not written when that is 0
 */
unsigned long hsm_make_share_key(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long kek,
                                 unsigned long recovery_key, unsigned long *key, uint8_t *wrapped40, uint8_t *recovery,
                                 unsigned long *recovery_len, const char **call);

/** Encrypt `plain` chunk by chunk under a session key, straight from the caller's memory.
 *
 *  In/Out: chunks  data and data_len say where and how much; their lengths sum to plain_len. iv and iv_len are in for
 *                  HSM_IV_CALLER, out otherwise; tag is out
 *  In:     aad     the trailer (index, count, last) is appended for each chunk; docs/sealing.md
 */
unsigned long hsm_encrypt(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long key,
                          const uint8_t *plain, size_t plain_len, const uint8_t *aad, size_t aad_len, hsm_chunk *chunks,
                          size_t count, const char **call);

/** Unwrap, decrypt every chunk straight into the caller's memory, destroy the key.
 *
 *  Out: plain  plain_len bytes, the sum of the chunks' lengths; all zero unless CKR_OK is returned
 */
unsigned long hsm_open(hsm_module *m, unsigned long session, const hsm_suite *suite, unsigned long kek,
                       const uint8_t *wrapped40, const uint8_t *aad, size_t aad_len, const hsm_chunk *chunks,
                       size_t count, uint8_t *plain, size_t plain_len, const char **call);

enum {
    HSM_RV_ODD_OUTPUT = 0x7e000001, /* the token's answer does not have the size the profile calls for */
    HSM_RV_MISUSE = 0x7e000002      /* an argument breaks this contract */
};
