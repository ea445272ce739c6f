/* Cryptoki: the part of PKCS #11 version 2.40 (OASIS) that this project calls or, in its test module, forwards.
 *
 * Types, constants and the order of CK_FUNCTION_LIST follow the "Cryptographic Token Interface Base Specification",
 * sections 3 and 5, and the "Current Mechanisms Specification", sections 2.1.8 (OAEP) and 2.12.3 (GCM). Structures have
 * the platform's natural alignment, as the standard asks for everywhere but on Windows. A name that is the standard's is
 * spelt as there.
 */
#ifndef TSSD_CRYPTOKI_H
#define TSSD_CRYPTOKI_H

typedef unsigned char CK_BYTE;
typedef unsigned char CK_BBOOL;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_FLAGS;
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;
typedef CK_ULONG CK_ATTRIBUTE_TYPE;
typedef CK_ULONG CK_MECHANISM_TYPE;

#define CK_TRUE 1
#define CK_FALSE 0

#define CKR_OK 0x0UL
#define CKR_HOST_MEMORY 0x2UL
#define CKR_GENERAL_ERROR 0x5UL
#define CKR_FUNCTION_FAILED 0x6UL
#define CKR_ARGUMENTS_BAD 0x7UL
#define CKR_CANT_LOCK 0xAUL
#define CKR_CRYPTOKI_NOT_INITIALIZED 0x190UL
#define CKR_BUFFER_TOO_SMALL 0x150UL

#define CKF_SERIAL_SESSION 0x4UL
#define CKF_RW_SESSION 0x2UL
#define CKF_OS_LOCKING_OK 0x2UL

#define CKU_USER 1UL

#define CKA_UNWRAP_TEMPLATE 0x40000212UL

#define CKM_RSA_PKCS_OAEP 0x9UL
#define CKM_AES_KEY_GEN 0x1080UL
#define CKM_ECDSA 0x1041UL
#define CKZ_DATA_SPECIFIED 1UL

typedef struct {
    CK_BYTE major;
    CK_BYTE minor;
} CK_VERSION;

typedef struct {
    CK_ATTRIBUTE_TYPE type;
    void *pValue;
    CK_ULONG ulValueLen;
} CK_ATTRIBUTE;

typedef struct {
    CK_MECHANISM_TYPE mechanism;
    void *pParameter;
    CK_ULONG ulParameterLen;
} CK_MECHANISM;

typedef struct {
    CK_SLOT_ID slotID;
    CK_ULONG state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
} CK_SESSION_INFO;

typedef struct {
    CK_RV (*CreateMutex)(void **mutex);
    CK_RV (*DestroyMutex)(void *mutex);
    CK_RV (*LockMutex)(void *mutex);
    CK_RV (*UnlockMutex)(void *mutex);
    CK_FLAGS flags;
    void *pReserved;
} CK_C_INITIALIZE_ARGS;

typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen;
    CK_ULONG ulIvBits;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen;
    CK_ULONG ulTagBits;
} CK_GCM_PARAMS;

typedef struct {
    CK_MECHANISM_TYPE hashAlg;
    CK_ULONG mgf;
    CK_ULONG source;
    void *pSourceData;
    CK_ULONG ulSourceDataLen;
} CK_RSA_PKCS_OAEP_PARAMS;

typedef CK_RV (*CK_NOTIFY)(CK_SESSION_HANDLE session, CK_ULONG event, void *application);

/* Every function of the interface in the standard's order: X(name, (parameters), (arguments)). */
#define CK_FUNCTIONS(X)                                                                                                \
    X(C_Initialize, (void *args), (args))                                                                              \
    X(C_Finalize, (void *reserved), (reserved))                                                                        \
    X(C_GetInfo, (void *info), (info))                                                                                 \
    X(C_GetFunctionList, (CK_FUNCTION_LIST **list), (list))                                                            \
    X(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count), (present, slots, count))                  \
    X(C_GetSlotInfo, (CK_SLOT_ID slot, void *info), (slot, info))                                                      \
    X(C_GetTokenInfo, (CK_SLOT_ID slot, void *info), (slot, info))                                                     \
    X(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *types, CK_ULONG *count), (slot, types, count))          \
    X(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, void *info), (slot, type, info))                   \
    X(C_InitToken, (CK_SLOT_ID slot, CK_BYTE *pin, CK_ULONG pin_len, CK_BYTE *label), (slot, pin, pin_len, label))     \
    X(C_InitPIN, (CK_SESSION_HANDLE s, CK_BYTE *pin, CK_ULONG pin_len), (s, pin, pin_len))                             \
    X(C_SetPIN, (CK_SESSION_HANDLE s, CK_BYTE *old, CK_ULONG old_len, CK_BYTE *new_pin, CK_ULONG new_len),             \
      (s, old, old_len, new_pin, new_len))                                                                             \
    X(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *s),             \
      (slot, flags, app, notify, s))                                                                                   \
    X(C_CloseSession, (CK_SESSION_HANDLE s), (s))                                                                      \
    X(C_CloseAllSessions, (CK_SLOT_ID slot), (slot))                                                                   \
    X(C_GetSessionInfo, (CK_SESSION_HANDLE s, CK_SESSION_INFO *info), (s, info))                                       \
    X(C_GetOperationState, (CK_SESSION_HANDLE s, CK_BYTE *state, CK_ULONG *len), (s, state, len))                      \
    X(C_SetOperationState,                                                                                             \
      (CK_SESSION_HANDLE s, CK_BYTE *state, CK_ULONG len, CK_OBJECT_HANDLE enc, CK_OBJECT_HANDLE auth),                \
      (s, state, len, enc, auth))                                                                                      \
    X(C_Login, (CK_SESSION_HANDLE s, CK_ULONG user, CK_BYTE *pin, CK_ULONG len), (s, user, pin, len))                  \
    X(C_Logout, (CK_SESSION_HANDLE s), (s))                                                                            \
    X(C_CreateObject, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o), (s, t, n, o))           \
    X(C_CopyObject,                                                                                                    \
      (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *copy),                  \
      (s, o, t, n, copy))                                                                                              \
    X(C_DestroyObject, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o), (s, o))                                              \
    X(C_GetObjectSize, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ULONG *size), (s, o, size))                        \
    X(C_GetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n), (s, o, t, n))       \
    X(C_SetAttributeValue, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n), (s, o, t, n))       \
    X(C_FindObjectsInit, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n), (s, t, n))                                \
    X(C_FindObjects, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *o, CK_ULONG max, CK_ULONG *count), (s, o, max, count))    \
    X(C_FindObjectsFinal, (CK_SESSION_HANDLE s), (s))                                                                  \
    X(C_EncryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                            \
    X(C_Encrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),                 \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_EncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),           \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_EncryptFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *out_len), (s, out, out_len))                       \
    X(C_DecryptInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                            \
    X(C_Decrypt, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),                 \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_DecryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),           \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_DecryptFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *out_len), (s, out, out_len))                       \
    X(C_DigestInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m), (s, m))                                                    \
    X(C_Digest, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),                  \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_DigestUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len), (s, in, in_len))                            \
    X(C_DigestKey, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE k), (s, k))                                                  \
    X(C_DigestFinal, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *out_len), (s, out, out_len))                        \
    X(C_SignInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                               \
    X(C_Sign, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *sig, CK_ULONG *sig_len),                    \
      (s, in, in_len, sig, sig_len))                                                                                   \
    X(C_SignUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len), (s, in, in_len))                              \
    X(C_SignFinal, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG *sig_len), (s, sig, sig_len))                          \
    X(C_SignRecoverInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                        \
    X(C_SignRecover, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *sig, CK_ULONG *sig_len),             \
      (s, in, in_len, sig, sig_len))                                                                                   \
    X(C_VerifyInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                             \
    X(C_Verify, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *sig, CK_ULONG sig_len),                   \
      (s, in, in_len, sig, sig_len))                                                                                   \
    X(C_VerifyUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len), (s, in, in_len))                            \
    X(C_VerifyFinal, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG sig_len), (s, sig, sig_len))                         \
    X(C_VerifyRecoverInit, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE k), (s, m, k))                      \
    X(C_VerifyRecover, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG sig_len, CK_BYTE *out, CK_ULONG *out_len),         \
      (s, sig, sig_len, out, out_len))                                                                                 \
    X(C_DigestEncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),     \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_DecryptDigestUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),     \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_SignEncryptUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),       \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_DecryptVerifyUpdate, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len),     \
      (s, in, in_len, out, out_len))                                                                                   \
    X(C_GenerateKey, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *k),         \
      (s, m, t, n, k))                                                                                                 \
    X(C_GenerateKeyPair,                                                                                               \
      (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *pub_t, CK_ULONG pub_n, CK_ATTRIBUTE *prv_t, CK_ULONG prv_n, \
       CK_OBJECT_HANDLE *pub, CK_OBJECT_HANDLE *prv),                                                                  \
      (s, m, pub_t, pub_n, prv_t, prv_n, pub, prv))                                                                    \
    X(C_WrapKey,                                                                                                       \
      (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE k, CK_BYTE *out,              \
       CK_ULONG *out_len),                                                                                             \
      (s, m, wrapping, k, out, out_len))                                                                               \
    X(C_UnwrapKey,                                                                                                     \
      (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE unwrapping, CK_BYTE *in, CK_ULONG in_len,                \
       CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *k),                                                              \
      (s, m, unwrapping, in, in_len, t, n, k))                                                                         \
    X(C_DeriveKey,                                                                                                     \
      (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *t, CK_ULONG n,                       \
       CK_OBJECT_HANDLE *k),                                                                                           \
      (s, m, base, t, n, k))                                                                                           \
    X(C_SeedRandom, (CK_SESSION_HANDLE s, CK_BYTE *seed, CK_ULONG len), (s, seed, len))                                \
    X(C_GenerateRandom, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG len), (s, out, len))                              \
    X(C_GetFunctionStatus, (CK_SESSION_HANDLE s), (s))                                                                 \
    X(C_CancelFunction, (CK_SESSION_HANDLE s), (s))                                                                    \
    X(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved), (flags, slot, reserved))

typedef struct CK_FUNCTION_LIST CK_FUNCTION_LIST;
struct CK_FUNCTION_LIST {
    CK_VERSION version;
#define CK_MEMBER(name, parameters, arguments) CK_RV(*name) parameters;
    CK_FUNCTIONS(CK_MEMBER)
#undef CK_MEMBER
};

#endif
