"""What went wrong at the token, told apart by what a caller has to do about it.

::

    HsmError
    |- SessionLost        a session, handle or login is gone        -> Token renews and tries once more by itself
    |- ModuleLost         the library, device or token is gone      -> Token.reconnect(), or a new process; then probe
    |  `- TokenLost       the token or our keys are not there       -> likewise; never delete anything because of it
    |- CredentialRefused  the PIN is wrong, locked, expired         -> latched; an operator changes the credential
    |- DataAltered        this sealed blob does not open, the HSM is well      -> quarantine it
    |- CapacityExceeded   too many sessions, too little memory      -> wait, with fewer at a time
    `- NotConforming      the token refuses or lacks what we need; or our own settings are wrong -> hsm doctor

The error classes and which code belongs where: docs/sealing.md, "Errors".
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import pkcs11.exceptions


class CKR(IntEnum):
    """Return values of PKCS #11 2.40 and 3.0, base specification, section 3; names as there."""

    OK = 0x0
    CANCEL = 0x1
    HOST_MEMORY = 0x2
    SLOT_ID_INVALID = 0x3
    GENERAL_ERROR = 0x5
    FUNCTION_FAILED = 0x6
    ARGUMENTS_BAD = 0x7
    NO_EVENT = 0x8
    NEED_TO_CREATE_THREADS = 0x9
    CANT_LOCK = 0xA
    ATTRIBUTE_READ_ONLY = 0x10
    ATTRIBUTE_SENSITIVE = 0x11
    ATTRIBUTE_TYPE_INVALID = 0x12
    ATTRIBUTE_VALUE_INVALID = 0x13
    ACTION_PROHIBITED = 0x1B
    DATA_INVALID = 0x20
    DATA_LEN_RANGE = 0x21
    DEVICE_ERROR = 0x30
    DEVICE_MEMORY = 0x31
    DEVICE_REMOVED = 0x32
    ENCRYPTED_DATA_INVALID = 0x40
    ENCRYPTED_DATA_LEN_RANGE = 0x41
    AEAD_DECRYPT_FAILED = 0x42
    FUNCTION_CANCELED = 0x50
    FUNCTION_NOT_PARALLEL = 0x51
    FUNCTION_NOT_SUPPORTED = 0x54
    KEY_HANDLE_INVALID = 0x60
    KEY_SIZE_RANGE = 0x62
    KEY_TYPE_INCONSISTENT = 0x63
    KEY_NOT_NEEDED = 0x64
    KEY_CHANGED = 0x65
    KEY_NEEDED = 0x66
    KEY_INDIGESTIBLE = 0x67
    KEY_FUNCTION_NOT_PERMITTED = 0x68
    KEY_NOT_WRAPPABLE = 0x69
    KEY_UNEXTRACTABLE = 0x6A
    MECHANISM_INVALID = 0x70
    MECHANISM_PARAM_INVALID = 0x71
    OBJECT_HANDLE_INVALID = 0x82
    OPERATION_ACTIVE = 0x90
    OPERATION_NOT_INITIALIZED = 0x91
    PIN_INCORRECT = 0xA0
    PIN_INVALID = 0xA1
    PIN_LEN_RANGE = 0xA2
    PIN_EXPIRED = 0xA3
    PIN_LOCKED = 0xA4
    SESSION_CLOSED = 0xB0
    SESSION_COUNT = 0xB1
    SESSION_HANDLE_INVALID = 0xB3
    SESSION_PARALLEL_NOT_SUPPORTED = 0xB4
    SESSION_READ_ONLY = 0xB5
    SESSION_EXISTS = 0xB6
    SESSION_READ_ONLY_EXISTS = 0xB7
    SESSION_READ_WRITE_SO_EXISTS = 0xB8
    SIGNATURE_INVALID = 0xC0
    SIGNATURE_LEN_RANGE = 0xC1
    TEMPLATE_INCOMPLETE = 0xD0
    TEMPLATE_INCONSISTENT = 0xD1
    TOKEN_NOT_PRESENT = 0xE0
    TOKEN_NOT_RECOGNIZED = 0xE1
    TOKEN_WRITE_PROTECTED = 0xE2
    UNWRAPPING_KEY_HANDLE_INVALID = 0xF0
    UNWRAPPING_KEY_SIZE_RANGE = 0xF1
    UNWRAPPING_KEY_TYPE_INCONSISTENT = 0xF2
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_PIN_NOT_INITIALIZED = 0x102
    USER_TYPE_INVALID = 0x103
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x104
    USER_TOO_MANY_TYPES = 0x105
    WRAPPED_KEY_INVALID = 0x110
    WRAPPED_KEY_LEN_RANGE = 0x112
    WRAPPING_KEY_HANDLE_INVALID = 0x113
    WRAPPING_KEY_SIZE_RANGE = 0x114
    WRAPPING_KEY_TYPE_INCONSISTENT = 0x115
    RANDOM_SEED_NOT_SUPPORTED = 0x120
    RANDOM_NO_RNG = 0x121
    DOMAIN_PARAMS_INVALID = 0x130
    CURVE_NOT_SUPPORTED = 0x140
    BUFFER_TOO_SMALL = 0x150
    SAVED_STATE_INVALID = 0x160
    INFORMATION_SENSITIVE = 0x170
    STATE_UNSAVEABLE = 0x180
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191
    MUTEX_BAD = 0x1A0
    MUTEX_NOT_LOCKED = 0x1A1
    NEW_PIN_MODE = 0x1B0
    NEXT_OTP = 0x1B1
    EXCEEDED_MAX_ITERATIONS = 0x1B5
    FIPS_SELF_TEST_FAILED = 0x1B6
    LIBRARY_LOAD_FAILED = 0x1B7
    PIN_TOO_WEAK = 0x1B8
    PUBLIC_KEY_INVALID = 0x1B9
    FUNCTION_REJECTED = 0x200
    TOKEN_RESOURCE_EXCEEDED = 0x201
    OPERATION_CANCEL_FAILED = 0x202
    KEY_EXHAUSTED = 0x203
    VENDOR_DEFINED = 0x80000000

    # Answers of our own C, in _direct.cdef.h; no token gives them.
    ODD_OUTPUT = 0x7E000001
    MISUSE = 0x7E000002


class HsmError(Exception):
    """Base of every error of this package.

    Attributes:
        rv: The CKR code the token gave, or None where the finding is our own.
    """

    def __init__(self, message: str, rv: int | None = None) -> None:
        super().__init__(message)
        self.rv = rv


class SessionLost(HsmError):
    """A session, an object handle or the login is gone."""


class ModuleLost(HsmError):
    """The library or the device behind it does not work."""


class TokenLost(ModuleLost):
    """The token, or the keys that must be on it, cannot be found."""


class CredentialRefused(HsmError):
    """The token refused the PIN, or the latch says it already did."""


class DataAltered(HsmError):
    """A sealed blob does not open although the token is well: changed, cut, relabelled or moved."""


class CapacityExceeded(HsmError):
    """The token has no room for this now."""


class NotConforming(HsmError):
    """The token refuses or lacks something the design needs, or the settings do not fit it."""


CLASSES: Final[dict[CKR, type[HsmError]]] = {
    **dict.fromkeys(
        (
            CKR.SESSION_CLOSED,
            CKR.SESSION_HANDLE_INVALID,
            CKR.OBJECT_HANDLE_INVALID,
            CKR.KEY_HANDLE_INVALID,
            CKR.WRAPPING_KEY_HANDLE_INVALID,
            CKR.UNWRAPPING_KEY_HANDLE_INVALID,
            CKR.USER_NOT_LOGGED_IN,
            # A half-done operation of an earlier failure: a fresh session has none.
            CKR.OPERATION_ACTIVE,
            CKR.OPERATION_NOT_INITIALIZED,
            CKR.OPERATION_CANCEL_FAILED,
        ),
        SessionLost,
    ),
    **dict.fromkeys((CKR.TOKEN_NOT_PRESENT, CKR.TOKEN_NOT_RECOGNIZED, CKR.SLOT_ID_INVALID), TokenLost),
    **dict.fromkeys(
        (
            CKR.PIN_INCORRECT,
            CKR.PIN_INVALID,
            CKR.PIN_LEN_RANGE,
            CKR.PIN_EXPIRED,
            CKR.PIN_LOCKED,
            CKR.PIN_TOO_WEAK,
            CKR.USER_PIN_NOT_INITIALIZED,
            CKR.NEW_PIN_MODE,
            CKR.NEXT_OTP,
        ),
        CredentialRefused,
    ),
    **dict.fromkeys(
        (
            CKR.ENCRYPTED_DATA_INVALID,
            CKR.ENCRYPTED_DATA_LEN_RANGE,
            CKR.AEAD_DECRYPT_FAILED,
            CKR.WRAPPED_KEY_INVALID,
            CKR.WRAPPED_KEY_LEN_RANGE,
        ),
        DataAltered,
    ),
    **dict.fromkeys(
        (CKR.SESSION_COUNT, CKR.HOST_MEMORY, CKR.TOKEN_RESOURCE_EXCEEDED),
        CapacityExceeded,
    ),
    **dict.fromkeys(
        (
            CKR.ARGUMENTS_BAD,
            CKR.ATTRIBUTE_READ_ONLY,
            CKR.ATTRIBUTE_SENSITIVE,
            CKR.ATTRIBUTE_TYPE_INVALID,
            CKR.ATTRIBUTE_VALUE_INVALID,
            CKR.ACTION_PROHIBITED,
            CKR.DATA_INVALID,
            CKR.DATA_LEN_RANGE,
            CKR.FUNCTION_NOT_PARALLEL,
            CKR.FUNCTION_NOT_SUPPORTED,
            CKR.KEY_SIZE_RANGE,
            CKR.KEY_TYPE_INCONSISTENT,
            CKR.KEY_NOT_NEEDED,
            CKR.KEY_CHANGED,
            CKR.KEY_NEEDED,
            CKR.KEY_INDIGESTIBLE,
            CKR.KEY_FUNCTION_NOT_PERMITTED,
            CKR.KEY_NOT_WRAPPABLE,
            CKR.KEY_UNEXTRACTABLE,
            CKR.MECHANISM_INVALID,
            CKR.MECHANISM_PARAM_INVALID,
            CKR.SESSION_PARALLEL_NOT_SUPPORTED,
            CKR.SESSION_READ_ONLY,
            CKR.SESSION_READ_ONLY_EXISTS,
            CKR.SESSION_READ_WRITE_SO_EXISTS,
            CKR.SIGNATURE_INVALID,
            CKR.SIGNATURE_LEN_RANGE,
            CKR.TEMPLATE_INCOMPLETE,
            CKR.TEMPLATE_INCONSISTENT,
            CKR.TOKEN_WRITE_PROTECTED,
            CKR.UNWRAPPING_KEY_SIZE_RANGE,
            CKR.UNWRAPPING_KEY_TYPE_INCONSISTENT,
            CKR.USER_TYPE_INVALID,
            CKR.USER_ANOTHER_ALREADY_LOGGED_IN,
            CKR.USER_TOO_MANY_TYPES,
            CKR.WRAPPING_KEY_SIZE_RANGE,
            CKR.WRAPPING_KEY_TYPE_INCONSISTENT,
            CKR.DOMAIN_PARAMS_INVALID,
            CKR.CURVE_NOT_SUPPORTED,
            CKR.BUFFER_TOO_SMALL,
            CKR.PUBLIC_KEY_INVALID,
            CKR.ODD_OUTPUT,
            CKR.MISUSE,
        ),
        NotConforming,
    ),
}
"""Every code that is not ModuleLost. What is not here, vendors' codes among it, says that something is wrong which we
cannot judge from inside the process; a fresh module is the strongest remedy there is."""


def name_of(rv: int) -> str:
    """CKR_GENERAL_ERROR (0x5), or the number alone where the standard has no name."""
    try:
        return f"CKR_{CKR(rv).name} (0x{rv:x})"
    except ValueError:
        return f"0x{rv:x}"


def class_of(rv: int) -> type[HsmError]:
    """The error class of a code other than CKR_OK."""
    try:
        return CLASSES.get(CKR(rv), ModuleLost)
    except ValueError:
        return ModuleLost


def check(rv: int, call: str) -> None:
    """Raise the class that belongs to `rv`, unless it is CKR_OK."""
    if rv != CKR.OK:
        raise class_of(rv)(f"{call}: {name_of(rv)}", rv)


# python-pkcs11 raises a class for each code and keeps no number. Its names are the standard's, but for three.
_BY_CLASS_NAME: Final = {code.name.replace("_", "").lower(): code for code in CKR} | {
    "anotheruseralreadyloggedin": CKR.USER_ANOTHER_ALREADY_LOGGED_IN,
    "functioncancelled": CKR.FUNCTION_CANCELED,
    "tokennotrecognised": CKR.TOKEN_NOT_RECOGNIZED,
}

_UNMAPPED: Final = re.compile(r"Unmapped error code (0x[0-9a-f]+)")
"""What it says of codes it has no class for."""


@contextmanager
def translated(call: str) -> Iterator[None]:
    """Turn python-pkcs11's exceptions into ours.

    Raises:
        HsmError: The class of the code that the exception stands for; ModuleLost where it stands for none.
    """
    try:
        yield
    except pkcs11.exceptions.PKCS11Error as error:
        text = str(error)
        unmapped = _UNMAPPED.fullmatch(text)
        code: int = _BY_CLASS_NAME.get(type(error).__name__.lower(), CKR.VENDOR_DEFINED)
        if unmapped:
            code, text = int(unmapped[1], 16), ""
        raise class_of(code)(f"{call}: {name_of(code)}" + (f": {text}" if text else ""), code) from error
