"""The values everything else is made of: parse or raise, frozen, compared by value.

Construction is the check. What cannot be is refused with `InvalidValue`, whose message names the value's kind; nothing
later asks again.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.custody.policy import PARTY_ID, PARTY_ID_MAX
from daemon.errors import InvalidValue

CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
COMMITTEE_MAX: Final = 32
"""Seats in a committee; the core's limit."""
JOIN_TOKEN_MAX: Final = 16 * 1024
KEYS_REMEMBERED: Final = 1024
"""Public keys known to be points: a session's row is read a dozen times, and each check is a square root."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")


def now() -> datetime:
    """The wall clock, UTC."""
    return datetime.now(UTC)


def _unhex(text: str, what: str) -> bytes:
    lower = text.lower()
    if _HEX.fullmatch(lower) is None:
        raise InvalidValue(f"{what} must be hexadecimal")
    return bytes.fromhex(lower)


class ShareType(StrEnum):
    """What a key is for."""

    WALLET = "wallet"
    ADMIN = "admin"
    RECOVERY = "recovery"


class Protocol(StrEnum):
    """The threshold protocol and its wire format."""

    GG18_V2 = "gg18-v2"
    GG18_V3 = "gg18-v3"


class Channel(StrEnum):
    """How protocol messages travel between the parties."""

    SEALED = "sealed"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, order=True)
class _Uuid:
    text: str

    def __post_init__(self) -> None:
        lower = self.text.lower()
        if _UUID.fullmatch(lower) is None:
            raise InvalidValue(f"a {self.noun()} is a UUID: 8-4-4-4-12 hexadecimal digits")
        object.__setattr__(self, "text", lower)

    @classmethod
    def noun(cls) -> str:
        """What it is called in a refusal."""
        return "UUID"

    @property
    def octets(self) -> bytes:
        """The 16 bytes."""
        return uuid.UUID(self.text).bytes

    @classmethod
    def of_octets(cls, octets: bytes) -> Self:
        """From 16 bytes."""
        return cls(str(uuid.UUID(bytes=octets)))

    def __str__(self) -> str:
        return self.text


class SessionId(_Uuid):
    """A ceremony's id, made by whoever created the session; any case in, lower case kept."""

    __slots__ = ()

    @classmethod
    def noun(cls) -> str:
        """What it is called in a refusal."""
        return "session id"


class ShareId(_Uuid):
    """A share's id, made here."""

    __slots__ = ()

    @classmethod
    def noun(cls) -> str:
        """What it is called in a refusal."""
        return "share id"

    @classmethod
    def fresh(cls) -> Self:
        """A new one, from the operating system's randomness."""
        return cls(str(uuid.uuid4()))


@dataclass(frozen=True, slots=True, order=True)
class PartyId:
    """One party: `{user}-{type}`. The type follows the LAST dash; the user part may hold dashes."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > PARTY_ID_MAX or PARTY_ID.fullmatch(self.text) is None:
            raise InvalidValue(
                f"a party id looks like user-type: ASCII letters, digits, '_' and '-', a dash before the type, "
                f"at most {PARTY_ID_MAX} characters"
            )

    @property
    def user(self) -> str:
        """What stands before the last dash."""
        return self.text.rpartition("-")[0]

    @property
    def type(self) -> str:
        """What follows the last dash."""
        return self.text.rpartition("-")[2]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class Threshold:
    """t of n: n parties hold shares, t of them sign. 2 <= t <= n <= 32."""

    t: int
    n: int

    def __post_init__(self) -> None:
        if not 2 <= self.t <= self.n <= COMMITTEE_MAX:
            raise InvalidValue(f"a threshold is t-of-n with 2 <= t <= n <= {COMMITTEE_MAX}, not {self.t}-of-{self.n}")

    def __str__(self) -> str:
        return f"{self.t}-of-{self.n}"


@lru_cache(maxsize=KEYS_REMEMBERED)
def _compressed(octets: bytes) -> bytes:
    """A point in its short form. Raises InvalidValue."""
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), octets)
    except ValueError:
        raise InvalidValue("a public key must be a point of secp256k1") from None
    return point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A group's key: a point of secp256k1. octets: compressed SEC1, 33 bytes."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) not in {33, 65}:
            raise InvalidValue("a public key has 33 or 65 bytes (SEC1)")
        object.__setattr__(self, "octets", _compressed(self.octets))

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From 33 or 65 bytes in hexadecimal."""
        return cls(_unhex(text, "a public key"))

    def verify(self, message_hash: MessageHash, signature: Signature) -> bool:
        """Whether the signature is one of this key over this hash."""
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), self.octets)
        der = utils.encode_dss_signature(signature.r, signature.s)
        try:
            point.verify(der, message_hash.octets, ec.ECDSA(utils.Prehashed(SHA256())))
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        return self.octets.hex()


@dataclass(frozen=True, slots=True)
class MessageHash:
    """What is signed: 32 bytes, reduced modulo the curve's order by the signature scheme itself."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 32:
            raise InvalidValue(f"a message hash has 32 bytes, not {len(self.octets)}")

    @classmethod
    def parse(cls, text: str) -> MessageHash:
        """From hexadecimal, `0x` in front or not."""
        return cls(_unhex(text[2:] if text[:2] in {"0x", "0X"} else text, "a message hash"))

    def __str__(self) -> str:
        return self.octets.hex()


@dataclass(frozen=True, slots=True)
class Signature:
    """octets: r||s, 64 bytes, low s. recovery_id: 0..3, beside it."""

    octets: bytes
    recovery_id: int

    def __post_init__(self) -> None:
        if len(self.octets) != 64 or not 0 <= self.recovery_id <= 3:
            raise InvalidValue("a signature is r||s, 64 bytes, with a recovery id of 0..3")
        if not (0 < self.r < CURVE_ORDER and 0 < self.s <= CURVE_ORDER // 2):
            raise InvalidValue("a signature's r and s are from 1 to the curve's order, and s is low")

    @property
    def r(self) -> int:
        """First half."""
        return int.from_bytes(self.octets[:32], "big")

    @property
    def s(self) -> int:
        """Second half."""
        return int.from_bytes(self.octets[32:], "big")

    def __str__(self) -> str:
        return self.octets.hex()


class JoinToken:
    """The coordinator's bearer token: passed on to it, never stored, printed or logged."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not 0 < len(text) <= JOIN_TOKEN_MAX or not text.isascii() or not text.isprintable():
            raise InvalidValue(f"a join token is 1..{JOIN_TOKEN_MAX} printable ASCII characters")
        self._text = text

    def reveal(self) -> str:
        """The token itself, for the one request that carries it."""
        return self._text

    def __repr__(self) -> str:
        return "<JoinToken>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("join tokens are not stored")


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """One member of a committee. number: its Shamir coordinate, 1..65535; party_index + 1 at keygen."""

    number: int
    party_id: PartyId

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 0xFFFF:
            raise InvalidValue(f"a seat is 1..65535, not {self.number}")


@dataclass(frozen=True, slots=True)
class Committee:
    """Who holds shares of a key: distinct parties on distinct seats, kept ascending by seat."""

    seats: tuple[Seat, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.seats))
        if not 2 <= len(ordered) <= COMMITTEE_MAX:
            raise InvalidValue(f"a committee has 2..{COMMITTEE_MAX} parties, not {len(ordered)}")
        if len({seat.number for seat in ordered}) != len(ordered):
            raise InvalidValue("a committee has one party on each seat")
        if len({seat.party_id for seat in ordered}) != len(ordered):
            raise InvalidValue("a committee has one seat for each party")
        object.__setattr__(self, "seats", ordered)

    @property
    def parties(self) -> frozenset[PartyId]:
        """The party ids."""
        return frozenset(seat.party_id for seat in self.seats)

    def seat_of(self, party_id: PartyId) -> int:
        """The party's seat number.

        Raises:
            KeyError: It has none here.
        """
        for seat in self.seats:
            if seat.party_id == party_id:
                return seat.number
        raise KeyError(party_id)
