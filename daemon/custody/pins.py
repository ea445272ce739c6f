"""Pinned peers: whose key speaks for which party ids, as one list that our own identity key signed.

    list:        u8 version (1) || u64 number || u16 count || pins, ascending by node
    pin:         string node || 33 bytes identity key || u16 count || patterns, ascending, each a string
    succession:  u8 version (1) || 33 bytes present key || 33 bytes successor || 64 bytes signature by the present key
    checkpoint:  u8 version (1) || u64 audit count || 32 bytes audit head || u64 chain count || 32 bytes chain head

Integers are big-endian, a string is u16 length and bytes. Signed is SHA-256(tag || 0x00 || body) with the tags
`tssd/1/pins`, `tssd/1/succession` and `tssd/1/checkpoint`: ECDSA P-256, r||s, low s.

The newest list stands in the state directory too, as it was signed; it is public. So it can be neither forgotten
between its signing and its storing elsewhere, nor replaced by an older one.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from daemon.custody.refusal import Refusal
from daemon.custody.state import replace_file
from daemon.custody.wire import PIN_LIST_HEAD, Pin, Pins, SignedPins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.custody.state import Peering

VERSION: Final = 1
PINS_MAX: Final = 4096
PATTERNS_MAX: Final = 256
NODE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
PATTERN: Final = re.compile(r"[A-Za-z0-9_*-]{1,128}")
KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FILE_MAX: Final = 4 * 1024 * 1024


def tagged(tag: str, body: bytes) -> bytes:
    """What the identity key signs for one use."""
    return hashlib.sha256(tag.encode("ascii") + b"\0" + body).digest()


def verify(identity: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether this is identity's signature over the digest, in the one form that is taken: r||s with low s."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < P256_ORDER and 0 < s <= P256_ORDER // 2):
        return False
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), identity)
        key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))
    except (ValueError, InvalidSignature):
        return False
    return True


def check_identity(identity: bytes, field: str) -> None:
    """Refuse what is no compressed point of P-256."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), identity)
    except ValueError:
        valid = False
    else:
        valid = len(identity) == KEY_BYTES
    if not valid:
        raise Refusal("refused", "not a P-256 key in compressed form, 33 bytes", field)


def checkpoint_body(audit_count: int, audit_head: bytes, chain_count: int, chain_head: bytes) -> bytes:
    """What a checkpoint states."""
    return struct.pack(">BQ", VERSION, audit_count) + audit_head + struct.pack(">Q", chain_count) + chain_head


def successor_body(present: bytes, successor: bytes) -> bytes:
    """What a statement of succession states."""
    return bytes([VERSION]) + present + successor


def encode_list(number: int, pins: tuple[Pin, ...]) -> bytes:
    """The list as it is signed."""
    parts = [PIN_LIST_HEAD.pack(VERSION, number, len(pins))]
    for pin in sorted(pins, key=lambda pin: pin.node):
        parts += [_string(pin.node), pin.identity, struct.pack(">H", len(pin.patterns))]
        parts += [_string(pattern) for pattern in sorted(pin.patterns)]
    return b"".join(parts)


def decode_list(body: bytes) -> tuple[int, tuple[Pin, ...]]:
    """Number and pins. Raises Refusal unless it is exactly what `encode_list` makes of a list that may be."""
    try:
        reader = _Reader(body)
        reader.take(1)  # the version: held against ours by encoding the list again, below
        number = reader.number(8)
        pins = tuple(
            Pin(
                node=reader.string(),
                identity=reader.take(KEY_BYTES),
                patterns=tuple(reader.string() for _ in range(reader.number(2))),
            )
            for _ in range(reader.number(2))
        )
    except ValueError:
        raise Refusal("refused", "not a list of pins of version 1", "pins.body") from None
    check_list(pins)
    if encode_list(number, pins) != body:
        raise Refusal("refused", "not a list of pins in canonical form", "pins.body")
    return number, pins


def check_list(pins: tuple[Pin, ...]) -> None:
    """Refuse a list in which a node or a key stands twice, or a name cannot be."""
    for pin in pins:
        check_identity(pin.identity, "pins.identity")
        if not NODE.fullmatch(pin.node):
            raise Refusal("refused", "a node's name has 1 to 64 ASCII letters, digits, '.', '_' or '-'", "pins.node")
        if not (0 < len(pin.patterns) <= PATTERNS_MAX and all(map(PATTERN.fullmatch, pin.patterns))):
            raise Refusal("refused", f"node {pin.node} has no patterns, or one that cannot be", "pins.patterns")
        if len(set(pin.patterns)) != len(pin.patterns):
            raise Refusal("refused", f"node {pin.node} has a pattern twice", "pins.patterns")
    for what, values in (("node", [pin.node for pin in pins]), ("identity", [pin.identity for pin in pins])):
        if len(set(values)) != len(values):
            raise Refusal("refused", f"one {what} is pinned twice", f"pins.{what}")
    if len(pins) > PINS_MAX:
        raise Refusal("refused", f"more than {PINS_MAX} pins", "pins")


def matches(pattern: str, party_id: str) -> bool:
    """Whether a pattern, in which only `*` is special, matches the whole party id."""
    return _compiled(pattern).fullmatch(party_id) is not None


@lru_cache(PINS_MAX)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))


def identity_of(pins: tuple[Pin, ...], party_id: str) -> bytes:
    """The key pinned for a party id. Raises Refusal where none or several nodes may speak for it."""
    found = [pin for pin in pins if any(matches(pattern, party_id) for pattern in pin.patterns)]
    if not found:
        raise Refusal("refused", f"no pinned peer speaks for {party_id}; add it with `tssctl peers add`", "pins")
    if len(found) > 1:
        nodes = ", ".join(pin.node for pin in found)
        raise Refusal("refused", f"{party_id} matches the pins of several nodes: {nodes}", "pins")
    return found[0].identity


class _Verified(NamedTuple):
    """A list that was verified and read: by which key, which bytes, and what they say."""

    identity: bytes
    signed: SignedPins
    pins: Pins


class PinBook:
    """The lists of pins that this node has signed.

    The file is read anew each time: an operator's command writes it while the service's custodian runs. What it holds
    is verified anew only where key or bytes are others than the last time; its number is compared with the chain's
    each time, and every other question of what may be used is asked each time too.
    """

    def __init__(self, directory: Path, recall: Callable[[], Peering]) -> None:
        """directory: the state directory. recall: what the chain says by now."""
        self._file = directory / "pins"
        self._signing = threading.Lock()
        self._recall = recall
        self._last: _Verified | None = None

    def number(self) -> int:
        """The newest list's number, unverified: to be shown."""
        try:
            signed = self._read()
        except Refusal:
            signed = None
        return self._recall().pins_number if signed is None else int.from_bytes(signed.body[1:9], "big")

    def problem(self, identity: bytes) -> str:
        """Why the newest list cannot be used; empty where it can, or there is none yet."""
        try:
            self.newest(identity)
        except Refusal as refusal:
            return refusal.message
        return ""

    def newest(self, identity: bytes) -> Pins | None:
        """The newest list, verified; None before the first. Raises Refusal where it is gone or not ours."""
        return self._newest((identity,))

    def check(self, signed: SignedPins, identity: bytes) -> Pins:
        """Verify a list that is shown. Raises Refusal: not ours, or older than the newest."""
        newest = self.newest(identity)
        if newest is not None and newest.signed == signed:
            return newest
        number = max(self._recall().pins_number, 0 if newest is None else newest.number)
        if not _signed_by((identity,), signed):
            raise _misplaced("the list of pins that is stored is not signed by our identity key", "pins.signature")
        pins = _listed(signed)
        if pins.number < number:
            raise _misplaced(f"list {pins.number} of pins is older than the newest, {number}", "pins")
        if newest is not None and pins.number == newest.number:
            raise _misplaced(f"there are two lists of pins with number {number}", "pins")
        return pins

    def sign(self, pins: tuple[Pin, ...], identity: bytes, sign: Callable[[bytes], bytes]) -> Pins:
        """Sign the next list; it is on the disk when this returns. Raises Refusal."""
        with self._signing:
            return self._sign(pins, self.newest(identity), identity, sign)

    def renew(self, identity: bytes, sign: Callable[[bytes], bytes]) -> Pins:
        """Sign the newest list anew, which an identity key of ours before this one signed; again: nothing.

        Signed is what stands in the state directory, never a list that is shown: with a key that was lost, somebody may
        have signed lists of his own.

        Raises:
            Refusal: There is no such list.
        """
        with self._signing:
            newest = self._newest((identity, *self._recall().identities))
            if newest is None:
                raise Refusal("refused", "no list of pins was ever signed; `tssctl peers add` begins the first", "pins")
            if _signed_by((identity,), newest.signed):
                return newest
            return self._sign(newest.pins, newest, identity, sign)

    def begin_anew(self, identity: bytes, sign: Callable[[bytes], bytes]) -> Pins:
        """Sign an empty list with the next number, whatever became of the newest. Raises Refusal."""
        with self._signing:
            try:
                newest = self._newest((identity, *self._recall().identities))
            except Refusal:
                newest = None  # the chain alone says which numbers were used
            return self._sign((), newest, identity, sign)

    def _sign(
        self, pins: tuple[Pin, ...], newest: Pins | None, identity: bytes, sign: Callable[[bytes], bytes]
    ) -> Pins:
        check_list(pins)
        if any(pin.identity == identity for pin in pins):
            raise Refusal("refused", "this is our own identity key", "pins.identity")
        number = max(self._recall().pins_number, 0 if newest is None else newest.number) + 1
        body = encode_list(number, pins)
        signed = SignedPins(body=body, signature=sign(tagged("tssd/1/pins", body)))
        replace_file(self._file, msgspec.msgpack.encode(signed))
        return Pins(number=number, pins=decode_list(body)[1], signed=signed)

    def _newest(self, identities: tuple[bytes, ...]) -> Pins | None:
        """The newest list, signed by one of these."""
        signed, (seen, ours) = self._read(), self._recall()
        if signed is None:
            if seen:
                raise _unusable(f"list {seen} of pins was signed, and the state directory has none")
            return None
        pins = self._verified(identities, signed)
        if pins is None:
            if _signed_by(ours, signed):
                raise Refusal(
                    "refused",
                    "the list of pins is signed by an earlier identity key of ours; "
                    "`tssctl peers renew` signs it with the present one",
                    "pins.signature",
                )
            raise _unusable("the list of pins in the state directory is not signed by our identity key")
        if pins.number < seen:
            raise _unusable(f"list {pins.number} of pins in the state directory is older than {seen}, which was seen")
        return pins

    def _verified(self, identities: tuple[bytes, ...], signed: SignedPins) -> Pins | None:
        """What a list says; None where none of these keys has signed it. Raises Refusal where it is none."""
        last = self._last  # taken once: other threads replace it
        if last is not None and last.identity in identities and last.signed == signed:
            return last.pins
        for identity in identities:
            if _signed_by((identity,), signed):
                pins = _listed(signed)
                self._last = _Verified(identity, signed, pins)
                return pins
        return None

    def _read(self) -> SignedPins | None:
        """What stands in the state directory."""
        try:
            with self._file.open("rb") as file:
                return msgspec.msgpack.decode(file.read(FILE_MAX), type=SignedPins)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, ValueError):
            raise _unusable("the list of pins in the state directory cannot be read") from None


def _signed_by(identities: tuple[bytes, ...], signed: SignedPins) -> bool:
    digest = tagged("tssd/1/pins", signed.body)
    return any(verify(identity, digest, signed.signature) for identity in identities)


def _listed(signed: SignedPins) -> Pins:
    number, pins = decode_list(signed.body)
    return Pins(number=number, pins=pins, signed=signed)


def _misplaced(what: str, field: str) -> Refusal:
    """What was shown is of no use."""
    return Refusal("refused", f"{what}; `tssctl peers verify` stores the newest of ours", field)


def _unusable(what: str) -> Refusal:
    """What stands in the state directory is of no use."""
    remedy = "bring the newest back, or pin everybody again from an empty list: `tssctl peers renew --empty`"
    return Refusal("refused", f"{what}; {remedy}", "pins")


def edited(
    pins: tuple[Pin, ...], action: str, node: str, identity: bytes | None, patterns: tuple[str, ...]
) -> tuple[Pin, ...]:
    """The list after an operator's edit. Raises Refusal."""
    present = next((pin for pin in pins if pin.node == node), None)
    others = tuple(pin for pin in pins if pin.node != node)
    if action == "remove":
        if present is None:
            raise Refusal("refused", f"no node {node} is pinned", "node")
        return others
    if (present is None) != (action == "add"):
        known = "is pinned already; replace it" if present else "is not pinned; add it"
        raise Refusal("refused", f"node {node} {known}", "node")
    if identity is None:
        raise Refusal("refused", "a pin needs an identity key", "identity")
    return (*others, Pin(node=node, identity=identity, patterns=tuple(sorted(patterns))))


def succeeded(pins: tuple[Pin, ...], statement: bytes) -> tuple[Pin, ...]:
    """The list in which a pinned key has given way to the successor it named. Raises Refusal."""
    length = 1 + 2 * KEY_BYTES
    body, signature = statement[:length], statement[length:]
    if len(body) != length or body[0] != VERSION:
        raise Refusal("refused", "not a statement of succession of version 1", "statement")
    present, successor = body[1 : 1 + KEY_BYTES], body[1 + KEY_BYTES :]
    if not verify(present, tagged("tssd/1/succession", body), signature):
        raise Refusal("refused", "the statement is not signed by the key it replaces", "statement")
    check_identity(successor, "statement")
    before = next((pin for pin in pins if pin.identity == present), None)
    if before is None:
        raise Refusal("refused", "the statement replaces a key that is not pinned", "statement")
    others = tuple(pin for pin in pins if pin is not before)
    return (*others, Pin(node=before.node, identity=successor, patterns=before.patterns))


class _Reader:
    """Bounded reading; ValueError at the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._content):
            raise ValueError("too short")
        taken, self._at = self._content[self._at : end], end
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def string(self) -> str:
        return self.take(self.number(2)).decode("ascii")


def _string(text: str) -> bytes:
    encoded = text.encode("ascii")
    return struct.pack(">H", len(encoded)) + encoded
