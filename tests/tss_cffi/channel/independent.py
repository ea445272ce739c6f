"""A second implementation of docs/channel.md, written from it over pyca/cryptography; it shares no code with the C.

It makes the test vectors, and sits in as a peer, honest or not, in the tests.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

VERSION: Final = 1
HELLO, READY, SEALED, ACK, CONFIRM, ABORT, BROADCAST = range(1, 8)
KEYGEN, SIGNING, ROTATION = range(1, 4)
TO_ALL, DIRECT = 1, 2
TWO: Final = 2
"""Parties between whom nothing is signed but by identity keys."""
NO_KEY: Final = bytes(32)
"""What stands in their hellos for an Ed25519 key."""

HEADER: Final = 22
SEALED_HEADER: Final = 35
SIGNATURE: Final = 64
TAG: Final = 16

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

TAGS: Final = {
    HELLO: b"tssd/1/hello",
    READY: b"tssd/1/ready",
    CONFIRM: b"tssd/1/confirm",
    ABORT: b"tssd/1/abort",
    BROADCAST: b"tssd/1/broadcast",
}


def sha256(*parts: bytes) -> bytes:
    """SHA-256 over the parts, one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def string(data: bytes) -> bytes:
    """u16 length and the bytes."""
    return struct.pack(">H", len(data)) + data


def header(kind: int, session: bytes, sender: int, version: int = VERSION) -> bytes:
    """What every frame opens with."""
    return struct.pack(">BB16sI", version, kind, session, sender)


class Identity:
    """A node's identity key, in software; signs deterministically (RFC 6979), so that vectors are reproducible."""

    def __init__(self, secret: int) -> None:
        """secret: 1 .. order - 1."""
        self._key = ec.derive_private_key(secret, ec.SECP256R1())
        self.public = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def sign(self, digest: bytes, *, low: bool = True, fresh: bool = False) -> bytes:
        """r||s; with low s, or with the other one; fresh: with a nonce of its own."""
        algorithm = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=not fresh)
        r, s = decode_dss_signature(self._key.sign(digest, algorithm))
        if (s > P256_ORDER // 2) == low:
            s = P256_ORDER - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def state(self, body: bytes) -> bytes:
        """A body under the tag of its kind, with our signature."""
        return body + self.sign(digest_of(body))


def digest_of(body: bytes) -> bytes:
    """What an identity key signs for a body."""
    return sha256(TAGS[body[1]], b"\0", body)


class Ephemeral:
    """The keys of one seat for one ceremony."""

    def __init__(self, x25519: bytes, ed25519: bytes) -> None:
        """x25519, ed25519: 32 bytes each, private."""
        self._exchange = X25519PrivateKey.from_private_bytes(x25519)
        self._signing = Ed25519PrivateKey.from_private_bytes(ed25519)
        self.x25519 = self._exchange.public_key().public_bytes_raw()
        self.ed25519 = self._signing.public_key().public_bytes_raw()

    def state(self, body: bytes) -> bytes:
        """A body under the tag of its kind, with our signature."""
        return body + self._signing.sign(TAGS[body[1]] + b"\0" + body)

    def key(self, peer: bytes, transcript: bytes, sender: int, receiver: int) -> bytes:
        """The traffic key of one direction. ValueError where the peer's key is of low order."""
        secret = self._exchange.exchange(X25519PublicKey.from_public_bytes(peer))
        info = b"tssd/1/frame" + struct.pack(">II", sender, receiver)
        return HKDF(SHA256(), 32, transcript, info).derive(secret)


def ephemeral_signed(statement: bytes, ed25519: bytes) -> bool:
    """Does that key's signature stand behind the statement?"""
    body, signature = statement[:-SIGNATURE], statement[-SIGNATURE:]
    try:
        Ed25519PublicKey.from_public_bytes(ed25519).verify(signature, TAGS[body[1]] + b"\0" + body)
    except InvalidSignature:
        return False
    return True


@dataclass(kw_only=True)
class Terms:
    """What a hello states but for the sender and its keys. committee: (seat, party id), ascending."""

    kind: int
    protocol: int
    session: bytes
    committee: list[tuple[int, str]]
    threshold: int
    generation: int = 0
    public_key: bytes = b""
    digest: bytes = b""

    def committee_bytes(self) -> bytes:
        """As in the hello and in the committee's digest."""
        return struct.pack(">H", len(self.committee)) + b"".join(
            struct.pack(">I", seat) + string(party_id.encode()) for seat, party_id in self.committee
        )

    def committee_digest(self) -> bytes:
        """As in a confirmation."""
        return sha256(b"tssd/1/committee\0", struct.pack(">H", self.threshold), self.committee_bytes())


def hello_body(terms: Terms, seat: int, identity: bytes, x25519: bytes, ed25519: bytes, party_id: str = "") -> bytes:
    """What a seat states; party_id only where it shall not be the committee's."""
    name = party_id or dict(terms.committee)[seat]
    return b"".join(
        (
            header(HELLO, terms.session, seat),
            bytes([terms.kind, terms.protocol]),
            string(name.encode()),
            identity,
            x25519,
            ed25519,
            terms.committee_bytes(),
            struct.pack(">HI", terms.threshold, terms.generation),
            string(terms.public_key),
            string(terms.digest),
        )
    )


def transcript(bodies: list[bytes]) -> bytes:
    """T over the hellos' bodies, by seat."""
    return sha256(b"tssd/1/transcript\0", *(struct.pack(">I", len(body)) + body for body in bodies))


def ready_body(session: bytes, seat: int, hashes: list[bytes]) -> bytes:
    """Which hellos a seat holds."""
    return header(READY, session, seat) + struct.pack(">H", len(hashes)) + b"".join(hashes)


def broadcast_body(session: bytes, seat: int, transcript: bytes, round_: int, digest: bytes) -> bytes:
    """That a seat broadcast a message of that SHA-256 in that round."""
    return header(BROADCAST, session, seat) + transcript + struct.pack(">H", round_) + digest


def sealed_header(session: bytes, sender: int, receiver: int, sequence: int, class_: int) -> bytes:
    """The part of a sealed frame that is in clear."""
    return header(SEALED, session, sender) + struct.pack(">IQB", receiver, sequence, class_)


def nonce(sequence: int) -> bytes:
    """Of a sealed frame."""
    return bytes(4) + struct.pack(">Q", sequence)


def seal(key: bytes, clear: bytes, payload: bytes) -> bytes:
    """A sealed frame; the sequence is read from the header."""
    sequence = struct.unpack_from(">Q", clear, 26)[0]
    return clear + ChaCha20Poly1305(key).encrypt(nonce(sequence), payload, clear)


def unseal(key: bytes, frame: bytes) -> bytes | None:
    """The payload; None for a bad tag."""
    clear, sealed = frame[:SEALED_HEADER], frame[SEALED_HEADER:]
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(struct.unpack_from(">Q", clear, 26)[0]), sealed, clear)
    except InvalidTag:
        return None


class Payload(NamedTuple):
    """What is inside a sealed frame. signature: of a broadcast between three or more, else empty."""

    round: int
    echo: list[bytes]
    signature: bytes
    message: bytes

    def encoded(self) -> bytes:
        """As it is sealed."""
        return struct.pack(">HB", self.round, len(self.echo)) + b"".join(self.echo) + self.signature + self.message


def read_payload(data: bytes, class_: int, parties: int) -> Payload:
    """The reverse of `Payload.encoded`, in a ceremony of so many."""
    round_, count = struct.unpack_from(">HB", data)
    at = 3 + 32 * count
    echo = [data[3 + 32 * i : 35 + 32 * i] for i in range(count)]
    signed = SIGNATURE if class_ == TO_ALL and parties > TWO else 0
    return Payload(round_, echo, data[at : at + signed], data[at + signed :])


def ack(session: bytes, sender: int, receiver: int, wanted: int) -> bytes:
    """A request for everything from `wanted` on."""
    return header(ACK, session, sender) + struct.pack(">IQ", receiver, wanted)


def echo_digest(rounds: list[list[bytes]]) -> bytes:
    """Over all rounds' hashes of all seats."""
    return sha256(b"tssd/1/echo\0", *(digest for hashes in rounds for digest in hashes))


def confirmation_body(terms: Terms, seat: int, transcript: bytes, echo: bytes, result: bytes) -> bytes:
    """That a seat has that result."""
    return b"".join(
        (
            header(CONFIRM, terms.session, seat),
            bytes([terms.kind, terms.protocol]),
            struct.pack(">I", terms.generation),
            terms.committee_digest(),
            transcript,
            echo,
            string(result),
        )
    )


def abort_body(session: bytes, seat: int, party_id: str, reason: str, culprits: tuple[int, ...] = ()) -> bytes:
    """That a seat gives up."""
    return b"".join(
        (
            header(ABORT, session, seat),
            string(party_id.encode()),
            string(reason.encode()),
            struct.pack(">H", len(culprits)),
            *(struct.pack(">I", seat) for seat in culprits),
        )
    )


class Note(NamedTuple):
    """One protocol message, as a party gives or takes it. to: a seat, or None for all."""

    to: int | None
    round: int
    data: bytes


@dataclass
class Peer:
    """One seat that speaks the channel. It keeps to the rules only as far as its caller does: each step is a call.

    hellos: every seat's statement, ours included, from `meet` on. broadcasts: [round][seat] -> SHA-256 of the message.
    """

    terms: Terms
    seat: int
    identity: Identity
    ephemeral: Ephemeral
    hellos: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    broadcasts: dict[int, dict[int, bytes]] = field(default_factory=dict)
    signatures: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @property
    def seats(self) -> list[int]:
        """All, ascending."""
        return [seat for seat, _ in self.terms.committee]

    @property
    def signs(self) -> bool:
        """Whether broadcasts and readies are signed: where somebody else could have been told otherwise."""
        return len(self.terms.committee) > TWO

    def hello(self) -> bytes:
        """Our statement."""
        keys = self.ephemeral
        return self.identity.state(
            hello_body(self.terms, self.seat, self.identity.public, keys.x25519, keys.ed25519 if self.signs else NO_KEY)
        )

    def meet(self, hellos: dict[int, bytes]) -> None:
        """All hellos are in."""
        self.hellos = dict(hellos)

    def bodies(self) -> list[bytes]:
        """Of the hellos, by seat."""
        return [self.hellos[seat][:-SIGNATURE] for seat in self.seats]

    @property
    def transcript(self) -> bytes:
        """T."""
        return transcript(self.bodies())

    def ready(self) -> bytes:
        """Our list of hellos."""
        body = ready_body(self.terms.session, self.seat, [sha256(hello) for hello in self.bodies()])
        return self.ephemeral.state(body) if self.signs else body

    def keys_of(self, seat: int) -> tuple[bytes, bytes]:
        """X25519 and Ed25519 key in a seat's hello."""
        body = self.hellos[seat]
        at = HEADER + 2
        at += 2 + struct.unpack_from(">H", body, at)[0] + 33
        return body[at : at + 32], body[at + 32 : at + 64]

    def key(self, sender: int, receiver: int) -> bytes:
        """The traffic key of one direction between us and a peer."""
        peer = sender if receiver == self.seat else receiver
        return self.ephemeral.key(self.keys_of(peer)[0], self.transcript, sender, receiver)

    def echo(self, round_: int) -> list[bytes]:
        """What a frame of that round lists."""
        return [self.broadcasts.get(round_ - 1, {}).get(seat, bytes(32)) for seat in self.seats] if round_ > 1 else []

    def signed_broadcast(self, round_: int, message: bytes) -> bytes:
        """Our statement about a broadcast."""
        return self.ephemeral.state(
            broadcast_body(self.terms.session, self.seat, self.transcript, round_, sha256(message))
        )

    def frame(self, to: int, payload: Payload, class_: int, sequence: int | None = None) -> bytes:
        """Seal a payload for a peer, with the next sequence if none is said."""
        if sequence is None:
            sequence = self.sequences.get(to, 0) + 1
            self.sequences[to] = sequence
        clear = sealed_header(self.terms.session, self.seat, to, sequence, class_)
        return seal(self.key(self.seat, to), clear, payload.encoded())

    def send(self, note: Note) -> dict[int, bytes]:
        """A party's message as frames, by receiver."""
        if note.to is not None:
            return {note.to: self.frame(note.to, Payload(note.round, self.echo(note.round), b"", note.data), DIRECT)}
        signature = self.signed_broadcast(note.round, note.data)[-SIGNATURE:] if self.signs else b""
        self.broadcasts.setdefault(note.round, {})[self.seat] = sha256(note.data)
        payload = Payload(note.round, self.echo(note.round), signature, note.data)
        return {seat: self.frame(seat, payload, TO_ALL) for seat in self.seats if seat != self.seat}

    def take(self, frame: bytes, *, minds_echo: bool = True) -> tuple[int, int, Payload]:
        """Open a frame to us: sender, class, payload. AssertionError for a wrong tag, echo or signature."""
        sender, to = struct.unpack_from(">I", frame, 18)[0], struct.unpack_from(">I", frame, 22)[0]
        class_ = frame[34]
        assert to == self.seat
        opened = unseal(self.key(sender, self.seat), frame)
        assert opened is not None, "tag"
        payload = read_payload(opened, class_, len(self.seats))
        assert not minds_echo or payload.echo == self.echo(payload.round), "echo"
        if class_ == TO_ALL:
            digest = sha256(payload.message)
            body = broadcast_body(self.terms.session, sender, self.transcript, payload.round, digest)
            if self.signs:
                assert ephemeral_signed(body + payload.signature, self.keys_of(sender)[1]), "signature"
            self.broadcasts.setdefault(payload.round, {})[sender] = digest
            self.signatures[payload.round, sender] = payload.signature
        return sender, class_, payload

    def confirmation(self, rounds: int, result: bytes) -> bytes:
        """Our statement that it ended with that result."""
        table = [[self.broadcasts.get(r, {}).get(seat, bytes(32)) for seat in self.seats] for r in range(1, rounds + 1)]
        return self.identity.state(
            confirmation_body(self.terms, self.seat, self.transcript, echo_digest(table), result)
        )

    def abort(self, reason: str, culprits: tuple[int, ...] = ()) -> bytes:
        """Our notice."""
        party_id = dict(self.terms.committee)[self.seat]
        return self.identity.state(abort_body(self.terms.session, self.seat, party_id, reason, culprits))
