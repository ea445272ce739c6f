"""Every return code at every call that an operation makes: the right class, and work goes on afterwards."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pkcs11.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import (
    CKR,
    CapacityExceeded,
    CredentialRefused,
    DataAltered,
    HsmError,
    ModuleLost,
    NotConforming,
    SealHeader,
    SessionLost,
    Token,
    TokenLost,
)
from hsm.errors import CLASSES, class_of, translated
from hsm.token import AMBIGUOUS
from tests.hsm.conftest import Faulty
from tests.hsm.fault import FUNCTIONS, Action
from tests.hsm.soft import Memory

CODES = [code for code in CKR if code not in (CKR.OK, CKR.ODD_OUTPUT, CKR.MISUSE)]
VENDOR = 0x80000123

OPEN = ("C_UnwrapKey", "C_DecryptInit", "C_Decrypt")
SEAL = ("C_GenerateKey", "C_WrapKey", "C_EncryptInit", "C_Encrypt")
SIGN = ("C_SignInit", "C_Sign")
CONNECT = (
    "C_Initialize",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_OpenSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GetAttributeValue",
    *SIGN,
    *SEAL,
    *OPEN,
)


def test_the_fault_module_knows_the_whole_interface() -> None:
    assert len(FUNCTIONS) == 68
    assert FUNCTIONS[0] == "C_Initialize"
    assert FUNCTIONS[-1] == "C_WaitForSlotEvent"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CKR.SESSION_HANDLE_INVALID, SessionLost),
        (CKR.USER_NOT_LOGGED_IN, SessionLost),
        (CKR.UNWRAPPING_KEY_HANDLE_INVALID, SessionLost),
        (CKR.DEVICE_ERROR, ModuleLost),
        (CKR.DEVICE_REMOVED, ModuleLost),
        (CKR.DEVICE_MEMORY, ModuleLost),
        (CKR.GENERAL_ERROR, ModuleLost),
        (CKR.CRYPTOKI_NOT_INITIALIZED, ModuleLost),
        (CKR.TOKEN_NOT_PRESENT, TokenLost),
        (CKR.PIN_INCORRECT, CredentialRefused),
        (CKR.PIN_LOCKED, CredentialRefused),
        (CKR.PIN_EXPIRED, CredentialRefused),
        (CKR.ENCRYPTED_DATA_INVALID, DataAltered),
        (CKR.WRAPPED_KEY_INVALID, DataAltered),
        (CKR.AEAD_DECRYPT_FAILED, DataAltered),
        (CKR.SESSION_COUNT, CapacityExceeded),
        (CKR.HOST_MEMORY, CapacityExceeded),
        (CKR.MECHANISM_INVALID, NotConforming),
        (CKR.TEMPLATE_INCONSISTENT, NotConforming),
        (VENDOR, ModuleLost),
    ],
)
def test_the_class_of_a_code(code: int, kind: type[HsmError]) -> None:
    assert class_of(code) is kind


def test_every_class_is_used_and_every_code_has_one() -> None:
    assert {class_of(code) for code in CODES} == set(HsmError.__subclasses__()) | {TokenLost}
    assert CKR.OK not in CLASSES


@pytest.mark.parametrize("function", OPEN)
def test_any_code_while_opening(faulty: Faulty, header: SealHeader, function: str) -> None:
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for code in [*CODES, VENDOR]:
            _once_while_opening(faulty, token, header, function, code)
            faulty.control.clear()
            opened = token.open(blob, header, Memory)
            assert isinstance(opened, Memory)
            assert opened.content == b"share"


def _once_while_opening(faulty: Faulty, token: Token, header: SealHeader, function: str, code: int) -> None:
    """One answer of `code`, the token well before and after."""
    blob = token.seal(Memory(b"share"), header)
    memory = Memory(b"stale")
    faulty.control.answer(function, code)
    if class_of(code) is SessionLost or code in AMBIGUOUS:
        assert token.open(blob, header, lambda _: memory) is memory
        assert memory.content == b"share"
    else:
        with pytest.raises(class_of(code)) as raised:
            token.open(blob, header, lambda _: memory)
        assert raised.value.rv == code
        assert memory.content == bytes(5)


@pytest.mark.parametrize("function", OPEN)
def test_any_code_that_stays_while_opening(faulty: Faulty, header: SealHeader, function: str) -> None:
    """The canary fails as well, so the share is never blamed."""
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for code in [*CODES, VENDOR]:
            faulty.control.answer(function, code, times=0)
            with pytest.raises(HsmError) as raised:
                token.open(blob, header, Memory)
            kind = class_of(code)
            assert type(raised.value) is (ModuleLost if kind is DataAltered else kind)
            assert raised.value.rv == code
            with pytest.raises(HsmError):
                token.probe()
            faulty.control.clear()
            token.probe()


@pytest.mark.parametrize("function", [*SEAL, *SIGN, "C_GenerateRandom"])
def test_any_code_while_sealing_signing_and_drawing(faulty: Faulty, header: SealHeader, function: str) -> None:
    with faulty.token.open() as token:
        token.create_keys()

        def operation() -> object:
            if function in SIGN:
                return token.sign_identity(bytes(32))
            return token.random(8) if function == "C_GenerateRandom" else token.seal(Memory(b"share"), header)

        for code in [*CODES, VENDOR]:
            faulty.control.answer(function, code)
            if class_of(code) is SessionLost:
                assert operation()
            else:
                with pytest.raises(class_of(code)) as raised:
                    operation()
                assert raised.value.rv == code
            faulty.control.clear()
            assert operation()


@pytest.mark.parametrize("function", CONNECT)
def test_any_code_while_connecting(faulty: Faulty, function: str) -> None:
    """Whatever goes wrong is raised as our own error, leaves no connection, and the next try works."""
    with faulty.token.open() as token:
        token.create_keys()
        for code in [*CODES, VENDOR]:
            if code in TOLERATED.get(function, ()):
                continue
            faulty.token.pin_file.chmod(0o600)  # another credential: a refused one is not tried again
            faulty.control.answer(function, code, times=0)
            with pytest.raises(HsmError) as raised:
                token.reconnect()
            if function == "C_GetTokenInfo" and class_of(code) is TokenLost:
                assert raised.value.rv is None  # a slot that lost its token: there is no token of this name
            else:
                assert raised.value.rv == (CKR.VENDOR_DEFINED if code in NAMELESS and function in BY_PYTHON else code)
            with pytest.raises(ModuleLost, match="not connected"):
                token.probe()
            faulty.control.clear()
            token._pin = faulty.token.pin()
            token.reconnect()
            token.probe()


ONE_OF_EACH = tuple({class_of(code): code for code in CODES}.values())
TIDYING = ("C_DestroyObject", "C_CloseSession", "C_Finalize")
MAKING = ("C_CreateObject", "C_GenerateKeyPair")


@pytest.mark.parametrize("action", [Action.ANSWER, Action.ANSWER_AFTER])
@pytest.mark.parametrize("function", TIDYING)
def test_any_code_while_tidying_up(faulty: Faulty, header: SealHeader, function: str, action: Action) -> None:
    """Whether the token did it or not: our own error or none, and all is well afterwards."""
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for code in [*CODES, VENDOR] if action is Action.ANSWER else ONE_OF_EACH:
            faulty.control.fault(function, action, code)
            with contextlib.suppress(HsmError):
                token.seal(Memory(b"share"), header)
                token.open(blob, header, Memory)
                faulty.control.expire_sessions()
                token.probe()
                token.reconnect()
            faulty.control.clear()
            token._pin = faulty.token.pin()
            token.reconnect()
            opened = token.open(blob, header, Memory)
            assert isinstance(opened, Memory)
            assert opened.content == b"share"


def test_any_code_while_a_recovery_key_is_put_on_the_token(faulty: Faulty) -> None:
    spki = (
        rsa.generate_private_key(65537, 3072).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    with faulty.token.open(recovery_key=spki) as token:
        token.create_keys()
        for code in [*CODES, VENDOR]:
            faulty.control.answer("C_CreateObject", code, times=0)
            with pytest.raises(HsmError):
                token.reconnect()
            faulty.control.clear()
            token._pin = faulty.token.pin()
            token.reconnect()


def test_any_code_while_making_a_pair(faulty: Faulty) -> None:
    """test_keys_are_made_all_or_none has what follows from it."""
    with faulty.token.open() as token:
        connection = token._connected()
        for code in [*CODES, VENDOR]:
            faulty.control.answer("C_GenerateKeyPair", code)
            with pytest.raises(HsmError):
                connection.generate_signing_pair("pair", store=False)
        connection.generate_signing_pair("pair", store=False)


def test_every_call_we_make_is_tried_with_every_code(faulty: Faulty, header: SealHeader) -> None:
    with faulty.token.open() as token:
        token.create_keys()
        token.new_kek_version()
        token.open(token.seal(Memory(b"share"), header), header, Memory)
        token.sign_backup(token.random(32))
        faulty.control.expire_sessions()
        token.probe()
        token.reconnect()
    called = {function for function in FUNCTIONS if faulty.control.calls(function)}
    assert called <= {*OPEN, *SEAL, *SIGN, *CONNECT, *TIDYING, *MAKING, "C_GenerateRandom"}


# python-pkcs11 keeps neither number nor name of these.
NAMELESS = {
    CKR.BUFFER_TOO_SMALL,
    CKR.CRYPTOKI_NOT_INITIALIZED,
    CKR.CRYPTOKI_ALREADY_INITIALIZED,
    CKR.SESSION_PARALLEL_NOT_SUPPORTED,
    CKR.USER_TYPE_INVALID,
}
BY_PYTHON = {"C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismList", "C_OpenSession"}

TOLERATED = {
    # The standard's own ways of saying "go on".
    "C_Login": {CKR.USER_ALREADY_LOGGED_IN},
    "C_GetAttributeValue": {CKR.ATTRIBUTE_SENSITIVE, CKR.ATTRIBUTE_TYPE_INVALID},
}


def test_sessions_that_expire_are_renewed_unseen(faulty: Faulty, header: SealHeader) -> None:
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for _ in range(20):
            faulty.control.expire_sessions()
            token.open(blob, header, Memory)
            faulty.control.expire_sessions()
            token.seal(Memory(b"share"), header)
            faulty.control.expire_sessions()
            token.sign_backup(bytes(32))
            faulty.control.expire_sessions()
            token.probe()


def test_stale_key_handles_are_found_again(faulty: Faulty, header: SealHeader) -> None:
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for function, code in (
            ("C_UnwrapKey", CKR.UNWRAPPING_KEY_HANDLE_INVALID),
            ("C_UnwrapKey", CKR.KEY_HANDLE_INVALID),
            ("C_WrapKey", CKR.WRAPPING_KEY_HANDLE_INVALID),
            ("C_SignInit", CKR.KEY_HANDLE_INVALID),
        ):
            faulty.control.fault(function, Action.ANSWER_TILL_FIND, code, times=0)
            token.open(blob, header, Memory)
            token.seal(Memory(b"share"), header)
            token.sign_identity(bytes(32))


@pytest.mark.parametrize("limit", [1, 2])
def test_few_sessions_are_shared(faulty: Faulty, header: SealHeader, limit: int) -> None:
    faulty.control.set(session_limit=limit)
    with faulty.token.open(sessions=8) as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        with token._connected().borrow() as first:
            if limit > 1:
                token.open(blob, header, Memory)
            assert first.handle
        token.reconnect()
        assert faulty.control.get("sessions") <= limit


def test_no_session_at_all_is_a_matter_of_capacity(faulty: Faulty) -> None:
    faulty.control.answer("C_OpenSession", CKR.SESSION_COUNT, times=0)
    with pytest.raises(CapacityExceeded):
        faulty.token.open()
    faulty.control.clear()
    faulty.token.open().close()


def test_a_library_that_cannot_lock_sees_one_call_at_a_time(faulty: Faulty, header: SealHeader) -> None:
    faulty.control.set(cannot_lock=1)
    with faulty.token.open(sessions=8) as token:
        token.create_keys()
        assert not token.status().locks
        assert token.status().sessions == 1
        blob = token.seal(Memory(bytes(20_000)), header)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: token.open(blob, header, Memory), range(400)))
    assert faulty.control.get("overlapped") == 0


def test_python_pkcs11s_exceptions_keep_their_class() -> None:
    for name, kind in (
        ("SessionHandleInvalid", SessionLost),
        ("TokenNotRecognised", TokenLost),
        ("DeviceRemoved", ModuleLost),
        ("PinIncorrect", CredentialRefused),
        ("PKCS11Error", ModuleLost),
    ):
        with pytest.raises(kind), translated("C_Test"):
            raise getattr(pkcs11.exceptions, name)


@pytest.mark.parametrize("code", [CKR.TEMPLATE_INCONSISTENT, CKR.DEVICE_ERROR, CKR.DEVICE_MEMORY])
@pytest.mark.parametrize("skip", [0, 1])
def test_keys_are_made_all_or_none(faulty: Faulty, code: CKR, skip: int) -> None:
    with faulty.token.open() as token:
        faulty.control.answer("C_GenerateKeyPair", code, skip=skip)
        with pytest.raises(class_of(code)):
            token.create_keys()
        assert token.status().kek_versions == ()
        assert token.status().identity_public is None
        token.reconnect()
        assert token.status().kek_versions == ()
        token.create_keys()
        token.probe()


def test_keys_are_made_after_sessions_expired(faulty: Faulty) -> None:
    with faulty.token.open() as token:
        faulty.control.expire_sessions()
        token.create_keys()
        faulty.control.expire_sessions()
        assert token.new_kek_version() == 2
