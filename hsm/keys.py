"""Our keys on the token: what each must look like, made so, read back, and found again without guessing.

Templates are tables. What a table says is what the token is asked for, and what is read back from it afterwards.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsm._direct import ffi, lib
from hsm.errors import CKR, NotConforming, check
from hsm.profiles import Profile


class CKA(IntEnum):
    """Attribute types of PKCS #11 2.40, as far as we use them."""

    CLASS = 0x0
    TOKEN = 0x1
    PRIVATE = 0x2
    LABEL = 0x3
    VALUE = 0x11
    TRUSTED = 0x86
    KEY_TYPE = 0x100
    ID = 0x102
    SENSITIVE = 0x103
    ENCRYPT = 0x104
    DECRYPT = 0x105
    WRAP = 0x106
    UNWRAP = 0x107
    SIGN = 0x108
    VERIFY = 0x10A
    DERIVE = 0x10C
    MODULUS = 0x120
    PUBLIC_EXPONENT = 0x122
    VALUE_LEN = 0x161
    EXTRACTABLE = 0x162
    LOCAL = 0x163
    NEVER_EXTRACTABLE = 0x164
    ALWAYS_SENSITIVE = 0x165
    MODIFIABLE = 0x170
    COPYABLE = 0x171
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    WRAP_WITH_TRUSTED = 0x210
    UNWRAP_TEMPLATE = 0x40000212
    ALLOWED_MECHANISMS = 0x40000600


CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
CKO_SECRET_KEY: Final = 4
CKK_RSA: Final = 0
CKK_EC: Final = 3
CKK_AES: Final = 0x1F
CKM_AES_KEY_GEN: Final = 0x1080

P256_PARAMS: Final = bytes.fromhex("06082a8648ce3d030107")  # the OID of secp256r1, DER
RECOVERY_BITS: Final = range(3072, 8192 + 1, 8)

Table = Mapping[CKA, "bool | int | str | bytes | tuple[int, ...] | Table"]


class Template:
    """A table as Cryptoki takes it; keeps alive what its pointers point to."""

    def __init__(self, table: Table) -> None:
        self._keep: list[Any] = []
        self.count = len(table)
        self.array = self._pack(table)

    def _pack(self, table: Table) -> Any:  # noqa: ANN401  (cffi array)
        array = ffi.new("CK_ATTRIBUTE[]", len(table))
        for attribute, (kind, value) in zip(array, table.items(), strict=True):
            if isinstance(value, Mapping):
                buffer = self._pack(value)
                attribute.ulValueLen = ffi.sizeof(buffer)
            else:
                packed = pack(value)
                buffer = ffi.new("uint8_t[]", packed)  # one byte longer than its text, so never empty
                attribute.ulValueLen = len(packed)
            self._keep.append(buffer)
            attribute.type = kind
            attribute.pValue = buffer
        return array


def pack(value: bool | int | str | bytes | tuple[int, ...]) -> bytes:  # noqa: FBT001  (a value, not a switch)
    """One attribute's value: CK_BBOOL, CK_ULONG, text, bytes, or an array of CK_ULONG."""
    match value:
        case bool():
            return bytes([value])
        case int():
            return struct.pack("L", value)
        case str():
            return value.encode()
        case bytes():
            return value
        case tuple():
            return struct.pack(f"{len(value)}L", *value)


NO_USE: Final[Table] = MappingProxyType(
    dict.fromkeys((CKA.ENCRYPT, CKA.DECRYPT, CKA.WRAP, CKA.UNWRAP, CKA.SIGN, CKA.VERIFY, CKA.DERIVE), False)
)

UNWRAPPED: Final[Table] = MappingProxyType({CKA.SENSITIVE: True, CKA.EXTRACTABLE: False})
"""The KEK's unwrap template: nothing that comes out from under it can be read or wrapped again."""


def kek_table(profile: Profile, label: str, version: int) -> Table:
    """A key encryption key. Its version is its CKA_ID, four bytes."""
    table: dict[CKA, Any] = {
        CKA.CLASS: CKO_SECRET_KEY,
        CKA.KEY_TYPE: CKK_AES,
        CKA.VALUE_LEN: 32,
        CKA.LABEL: label,
        CKA.ID: struct.pack(">I", version),
        CKA.TOKEN: True,
        CKA.PRIVATE: True,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: False,
        CKA.MODIFIABLE: False,
        **NO_USE,
        CKA.WRAP: True,
        CKA.UNWRAP: True,
    }
    if profile.copyable:
        table[CKA.COPYABLE] = False  # a copy could be given other attributes
    if profile.allowed_mechanisms:
        table[CKA.ALLOWED_MECHANISMS] = (profile.wrap,)
    if profile.unwrap_template:
        table[CKA.UNWRAP_TEMPLATE] = UNWRAPPED
    return table


def share_key_table(*, trusted_only: bool) -> Table:
    """A new share key: extractable, for the one moment in which it is wrapped. Never a token object."""
    table: dict[CKA, Any] = {
        CKA.CLASS: CKO_SECRET_KEY,
        CKA.KEY_TYPE: CKK_AES,
        CKA.VALUE_LEN: 32,
        CKA.TOKEN: False,
        CKA.PRIVATE: True,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: True,
        **NO_USE,
        CKA.ENCRYPT: True,
    }
    if trusted_only:
        table[CKA.WRAP_WITH_TRUSTED] = True
    return table


def opened_key_table(profile: Profile) -> Table:
    """A share key unwrapped to open a share."""
    table: dict[CKA, Any] = {
        CKA.CLASS: CKO_SECRET_KEY,
        CKA.KEY_TYPE: CKK_AES,
        CKA.TOKEN: False,
        CKA.PRIVATE: True,
        **UNWRAPPED,
        **NO_USE,
        CKA.DECRYPT: True,
    }
    if profile.value_len_on_unwrap:
        table[CKA.VALUE_LEN] = 32
    return table


def signing_tables(profile: Profile, label: str) -> tuple[Table, Table]:
    """A P-256 pair for signatures alone: public, private."""
    shared: dict[CKA, Any] = {CKA.LABEL: label, CKA.ID: label.encode(), CKA.TOKEN: True, CKA.MODIFIABLE: False}
    if profile.copyable:
        shared[CKA.COPYABLE] = False
    public = {
        **shared,
        CKA.EC_PARAMS: P256_PARAMS,
        CKA.PRIVATE: False,
        CKA.VERIFY: True,
        CKA.ENCRYPT: False,
        CKA.WRAP: False,
    }
    private = {
        **shared,
        CKA.PRIVATE: True,
        CKA.SENSITIVE: True,
        CKA.EXTRACTABLE: False,
        CKA.SIGN: True,
        CKA.DECRYPT: False,
        CKA.UNWRAP: False,
        CKA.DERIVE: False,
    }
    return public, private


def made_here(profile: Profile) -> Table:
    """What a key that was made in the token, and never was anything else, says of itself."""
    said: dict[CKA, Any] = {CKA.ALWAYS_SENSITIVE: True, CKA.NEVER_EXTRACTABLE: True}
    if profile.tells_local:
        said[CKA.LOCAL] = True
    return said


def recovery_table(spki: bytes) -> Table:
    """The recovery key as a public session object that can wrap, and nothing else.

    Raises:
        NotConforming: Not an RSA key of at least 3072 bits.
    """
    key = recovery_public_key(spki)
    numbers = key.public_numbers()
    return {
        CKA.CLASS: CKO_PUBLIC_KEY,
        CKA.KEY_TYPE: CKK_RSA,
        CKA.TOKEN: False,
        CKA.PRIVATE: False,
        CKA.WRAP: True,
        CKA.ENCRYPT: False,
        CKA.VERIFY: False,
        CKA.MODULUS: numbers.n.to_bytes(key.key_size // 8),
        CKA.PUBLIC_EXPONENT: numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8),
    }


def recovery_public_key(spki: bytes) -> rsa.RSAPublicKey:
    """The key in a DER SubjectPublicKeyInfo.

    Raises:
        NotConforming: Not an RSA key of 3072 bits or more, up to 8192, in whole bytes.
    """
    try:
        key = load_der_public_key(spki)
    except ValueError as error:
        raise NotConforming("the recovery key is not a DER SubjectPublicKeyInfo") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in RECOVERY_BITS:
        raise NotConforming("the recovery key must be RSA with 3072 to 8192 bits")
    return key


@dataclass(frozen=True)
class SigningKey:
    """One of our P-256 keys."""

    handle: int
    public: bytes
    """SEC1, compressed, 33 bytes."""


@dataclass(frozen=True)
class KeyRing:
    """Handles of our keys; good for one generation of sessions."""

    keks: Mapping[int, int] = field(default_factory=dict)
    trusted_keks: frozenset[int] = frozenset()
    identity: SigningKey | None = None
    backup: SigningKey | None = None
    recovery: int = 0
    """Session object of the recovery key; 0 without one."""

    @property
    def current_kek(self) -> int | None:
        """The newest version, under which is sealed."""
        return max(self.keks, default=None)


class Objects:
    """Objects of one session: made, read, found. Not for two threads at once."""

    def __init__(self, module: Any, session: int) -> None:  # noqa: ANN401  (cffi handle)
        self._module = module
        self._session = session

    def random(self, length: int) -> bytes:
        """C_GenerateRandom."""
        out = ffi.new("uint8_t[]", max(length, 1))
        check(lib.hsm_random(self._module, self._session, out, length), "C_GenerateRandom")
        return bytes(ffi.buffer(out, length))

    def generate(self, mechanism: int, table: Table) -> int:
        """C_GenerateKey."""
        template, handle = Template(table), ffi.new("unsigned long *")
        rv = lib.hsm_generate_key(self._module, self._session, mechanism, template.array, template.count, handle)
        check(rv, "C_GenerateKey")
        return int(handle[0])

    def create(self, table: Table) -> int:
        """C_CreateObject."""
        template, handle = Template(table), ffi.new("unsigned long *")
        check(
            lib.hsm_create_object(self._module, self._session, template.array, template.count, handle),
            "C_CreateObject",
        )
        return int(handle[0])

    def find(self, kind: int, label: str) -> list[int]:
        """Our token objects of one class and label, up to 64: more of one name are a mistake in any case.

        python-pkcs11 could search, but leaves the search and a lock of its own behind where the token fails in it.
        """
        template = Template({CKA.CLASS: kind, CKA.LABEL: label, CKA.TOKEN: True})
        room = 64
        handles, found = ffi.new("unsigned long[]", room), ffi.new("unsigned long *")
        call = ffi.new("const char **")
        rv = lib.hsm_find(self._module, self._session, template.array, template.count, handles, room, found, call)
        check(rv, ffi.string(call[0]).decode())
        return list(handles[0 : found[0]])

    def destroy(self, handle: int) -> None:
        """C_DestroyObject."""
        check(lib.hsm_destroy_object(self._module, self._session, handle), "C_DestroyObject")

    def copy(self, handle: int, table: Table) -> int:
        """C_CopyObject, with these attributes other than before."""
        template, copied = Template(table), ffi.new("unsigned long *")
        rv = lib.hsm_copy_object(self._module, self._session, handle, template.array, template.count, copied)
        check(rv, "C_CopyObject")
        return int(copied[0])

    def change(self, handle: int, table: Table) -> None:
        """C_SetAttributeValue."""
        template = Template(table)
        rv = lib.hsm_set_attributes(self._module, self._session, handle, template.array, template.count)
        check(rv, "C_SetAttributeValue")

    def wrap(self, mechanism: int, wrapping: int, key: int) -> bytes:
        """C_WrapKey by a mechanism without parameter."""
        room = 4096
        out, length = ffi.new("uint8_t[]", room), ffi.new("unsigned long *", room)
        check(lib.hsm_wrap(self._module, self._session, mechanism, wrapping, key, out, length), "C_WrapKey")
        return bytes(ffi.buffer(out, length[0]))

    def unwrap(self, mechanism: int, unwrapping: int, wrapped: bytes, table: Table) -> int:
        """C_UnwrapKey by a mechanism without parameter."""
        template, key = Template(table), ffi.new("unsigned long *")
        rv = lib.hsm_unwrap(
            self._module,
            self._session,
            mechanism,
            unwrapping,
            wrapped,
            len(wrapped),
            template.array,
            template.count,
            key,
        )
        check(rv, "C_UnwrapKey")
        return int(key[0])

    def read(self, handle: int, kind: CKA) -> bytes | None:
        """One attribute; None where the token does not know it or does not tell.

        Never ask for CKA_VALUE with this: see `readable`.

        Raises:
            HsmError: The object or the token is not there.
        """
        attribute = ffi.new("CK_ATTRIBUTE[1]")
        attribute[0].type = kind
        rv = lib.hsm_get_attributes(self._module, self._session, handle, attribute, 1)
        length = attribute[0].ulValueLen
        if rv in _NOT_TOLD or length == UNAVAILABLE:
            return None
        check(rv, "C_GetAttributeValue")
        buffer = ffi.new("uint8_t[]", max(length, 1))
        attribute[0].pValue = buffer
        check(lib.hsm_get_attributes(self._module, self._session, handle, attribute, 1), "C_GetAttributeValue")
        return bytes(ffi.buffer(buffer, attribute[0].ulValueLen))

    def read_template(self, handle: int, kind: CKA) -> dict[int, bytes] | None:
        """An attribute that is a template; None where the token does not know it."""
        size = ffi.sizeof("CK_ATTRIBUTE")
        outer = ffi.new("CK_ATTRIBUTE[1]")
        outer[0].type = kind
        rv = lib.hsm_get_attributes(self._module, self._session, handle, outer, 1)
        if rv in _NOT_TOLD or outer[0].ulValueLen in (0, UNAVAILABLE):
            return None
        check(rv, "C_GetAttributeValue")
        inner = ffi.new("CK_ATTRIBUTE[]", outer[0].ulValueLen // size)
        outer[0].pValue = inner
        check(lib.hsm_get_attributes(self._module, self._session, handle, outer, 1), "C_GetAttributeValue")
        # Types and sizes have come; now the values.
        keep = []
        for attribute in inner:
            keep.append(ffi.new("uint8_t[]", max(attribute.ulValueLen, 1)))
            attribute.pValue = keep[-1]
        check(lib.hsm_get_attributes(self._module, self._session, handle, outer, 1), "C_GetAttributeValue")
        return {int(a.type): bytes(ffi.buffer(a.pValue, a.ulValueLen)) for a in inner}

    def readable(self, handle: int) -> bool:
        """Whether the token would give the key's value away.

        Asks for its length alone: a token that tells that tells the value too, which must not come here to find out.
        """
        attribute = ffi.new("CK_ATTRIBUTE[1]")
        attribute[0].type = CKA.VALUE
        rv = lib.hsm_get_attributes(self._module, self._session, handle, attribute, 1)
        if rv == CKR.OK:
            return bool(attribute[0].ulValueLen != UNAVAILABLE)
        if rv not in _NOT_TOLD:
            check(rv, "C_GetAttributeValue")
        return False

    def differences(self, handle: int, table: Table) -> list[str]:
        """Where the object is not what the table says, in words."""
        found = []
        for kind, wanted in table.items():
            if isinstance(wanted, Mapping):
                inner = self.read_template(handle, kind)
                if inner != {int(k): pack(v) for k, v in wanted.items() if not isinstance(v, Mapping)}:
                    found.append(f"CKA_{kind.name} is not kept")
                continue
            value = self.read(handle, kind)
            if value != pack(wanted):
                text = "not told" if value is None else value.hex()
                found.append(f"CKA_{kind.name} is {text}, not {pack(wanted).hex()}")
        return found


UNAVAILABLE: Final = 2 ** (8 * struct.calcsize("L")) - 1
_NOT_TOLD: Final = frozenset({CKR.ATTRIBUTE_SENSITIVE, CKR.ATTRIBUTE_TYPE_INVALID})


def compressed_point(ec_point: bytes) -> bytes:
    """CKA_EC_POINT to SEC1 compressed: an OCTET STRING by the standard, bare on some tokens.

    Raises:
        NotConforming: Not a point of P-256.
    """
    bare = ec_point[2:] if ec_point[:2] == b"\x04\x41" else ec_point
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bare)
    except ValueError as error:
        raise NotConforming("CKA_EC_POINT is not a point of P-256") from error
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
