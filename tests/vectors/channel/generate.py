"""Makes the vectors in this folder: ``python -m tests.vectors.channel.generate``, from the project's root.

Every byte comes from `tests/tss_cffi/channel/independent.py`, which is written from docs/channel.md over
pyca/cryptography and shares no code with the C. Nothing is random: the same files come out each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.tss_cffi.channel import independent as wire

HERE: Final = Path(__file__).parent
ORIGIN: Final = "tests/vectors/channel/generate.py, over pyca/cryptography; independent of the C"
GENERATOR: Final = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
TERMS: Final = wire.Terms(
    kind=wire.SIGNING,
    protocol=1,
    session=bytes(range(16)),
    committee=[(1, "alice-server"), (2, "bob-with-dash-server"), (4, "carol_4-hsm")],
    threshold=2,
    generation=3,
    public_key=GENERATOR,
    digest=hashlib.sha256(b"message").digest(),
)
TWO: Final = dataclasses.replace(TERMS, committee=[(1, "alice-server"), (4, "carol_4-hsm")])
"""Between two nothing is signed but by identity keys."""


def seed(seat: int) -> bytes:
    """Of a seat's randomness in a seeded build: its first two blocks are the ephemeral keys."""
    return hashlib.sha256(b"channel vector, seat %d" % seat).digest()


def identity_secret(seat: int) -> int:
    """A seat's identity key."""
    return int.from_bytes(hashlib.sha256(b"channel vector, identity %d" % seat).digest()) % (wire.P256_ORDER - 1) + 1


def peers(terms: wire.Terms) -> dict[int, wire.Peer]:
    """The seats, which have met."""
    made = {
        seat: wire.Peer(
            terms,
            seat,
            wire.Identity(identity_secret(seat)),
            wire.Ephemeral(wire.sha256(seed(seat), bytes(8)), wire.sha256(seed(seat), (1).to_bytes(8))),
        )
        for seat, _ in terms.committee
    }
    hellos = {seat: peer.hello() for seat, peer in made.items()}
    for peer in made.values():
        peer.meet(hellos)
    return made


def message(sender: int, round_: int, to: int | None) -> bytes:
    """Something to send."""
    return hashlib.shake_128(f"{sender} {round_} {to}".encode()).digest(40 + 100 * round_)


def frames(made: dict[int, wire.Peer]) -> list[dict[str, Any]]:
    """Round 1: broadcasts and direct messages; round 2: direct ones, which echo round 1; round 3: empty broadcasts."""
    out: list[dict[str, Any]] = []
    for round_, classes in ((1, (wire.TO_ALL, wire.DIRECT)), (2, (wire.DIRECT,)), (3, (wire.TO_ALL,))):
        for sender, peer in made.items():
            notes = []
            if wire.TO_ALL in classes:
                notes.append(wire.Note(None, round_, b"" if round_ == 3 else message(sender, round_, None)))
            if wire.DIRECT in classes:
                notes += [wire.Note(to, round_, message(sender, round_, to)) for to in made if to != sender]
            for note in notes:
                out += [
                    {
                        "from": sender,
                        "to": to,
                        "round": round_,
                        "class": frame[34],
                        "sequence": int.from_bytes(frame[26:34]),
                        "key": peer.key(sender, to).hex(),
                        "message": note.data.hex(),
                        "frame": frame.hex(),
                    }
                    for to, frame in peer.send(note).items()
                ]
        for entry in out:
            if entry["round"] == round_:
                made[entry["to"]].take(bytes.fromhex(entry["frame"]))
    return out


def ceremony(terms: wire.Terms) -> dict[str, Any]:
    """A whole ceremony from keys to confirmations."""
    made = peers(terms)
    sent = frames(made)
    keygen = wire.Terms(
        kind=wire.KEYGEN, protocol=2, session=terms.session, committee=terms.committee, threshold=terms.threshold
    )
    return {
        "origin": ORIGIN,
        "terms": {
            "session": terms.session.hex(),
            "committee": terms.committee,
            "threshold": terms.threshold,
            "generation": terms.generation,
            "public_key": terms.public_key.hex(),
            "digest": terms.digest.hex(),
        },
        "seats": [
            {
                "seat": seat,
                "seed": seed(seat).hex(),
                "identity_secret": f"{identity_secret(seat):064x}",
                "identity": peer.identity.public.hex(),
                "x25519": peer.ephemeral.x25519.hex(),
                "ed25519": (peer.ephemeral.ed25519 if peer.signs else wire.NO_KEY).hex(),
                "hello": peer.hello().hex(),
                "hello_digest": wire.digest_of(peer.hello()[: -wire.SIGNATURE]).hex(),
                "ready": peer.ready().hex(),
                "broadcast_of_round_1": peer.signed_broadcast(1, message(seat, 1, None)).hex() if peer.signs else "",
                "abort": peer.abort("test", (1, 4) if seat == 2 else ()).hex(),
                "confirmation_of_a_keygen": peer.identity.state(
                    wire.confirmation_body(keygen, seat, peer.transcript, bytes(32), hashlib.sha256(b"share").digest())
                ).hex(),
            }
            for seat, peer in made.items()
        ],
        "transcript": made[1].transcript.hex(),
        "committee_digest": terms.committee_digest().hex(),
        "frames": sent,
    }


def refused() -> dict[str, Any]:
    """What seat 1 must drop when all hellos are in, or fail for: one frame each."""
    made = peers(TERMS)
    sent = frames(made)
    first = next(e for e in sent if (e["from"], e["to"], e["round"]) == (2, 1, 1) and e["class"] == wire.DIRECT)
    frame = bytes.fromhex(first["frame"])
    hello = made[2].hello()[: -wire.SIGNATURE]
    digest = wire.digest_of(hello)
    other = wire.hello_body(TERMS, 2, made[2].identity.public, bytes(31) + b"\x09", made[2].ephemeral.ed25519)
    ready = made[2].ready()
    hashes = [wire.sha256(body) for body in made[2].bodies()]
    other_ready = made[2].ephemeral.state(wire.ready_body(TERMS.session, 2, [bytes(32), *hashes[1:]]))
    abort = wire.abort_body(TERMS.session, 2, "bob-with-dash-server", "test")

    def case(name: str, comment: str, data: bytes, drop: str = "", fault: str = "", **more: object) -> dict[str, Any]:
        return {"name": name, "comment": comment, "frame": data.hex(), "drop": drop, "fault": fault, **more}

    return {
        "origin": ORIGIN,
        "cases": [
            case("genuine", "the frame that the others are made of", frame),
            case("tag", "last bit of the tag flipped", flipped(frame), "tag"),
            case(
                "ciphertext", "a bit of the ciphertext flipped", frame[:40] + bytes([frame[40] ^ 1]) + frame[41:], "tag"
            ),
            case("class", "direct made a broadcast", frame[:34] + b"\1" + frame[35:], "tag"),
            case("sequence", "another place in the order", frame[:33] + b"\x07" + frame[34:], "tag"),
            case("sequence-0", "0 is the ready", frame[:26] + bytes(8) + frame[34:], "sequence"),
            case("sequence-2^32", "beyond the last", frame[:26] + struct.pack(">Q", 2**32) + frame[34:], "sequence"),
            case("receiver", "to seat 4", frame[:25] + b"\x04" + frame[26:], "receiver"),
            case("reflected", "from seat 1 to seat 1", frame[:21] + b"\x01" + frame[22:], "sender"),
            case("turned", "1 -> 2 under the key of 2 -> 1", turned(made), "tag"),
            case("other-pair", "2 -> 4 sent to seat 1", redirected(sent), "tag"),
            case("session", "another session", frame[:2] + b"\xff" + frame[3:], "session"),
            case("version", "version 2", b"\x02" + frame[1:], "version"),
            case("kind", "no such kind", frame[:1] + b"\x09" + frame[2:], "malformed"),
            case("cut", "no room for a tag", frame[:50], "malformed"),
            case("nonce-little-endian", "sequence written backwards into the nonce", backwards(made), "tag"),
            case("hello-high-s", "n - s for s", hello + made[2].identity.sign(digest, low=False), "repeat"),
            case(
                "hello-changed-high-s",
                "a new body under n - s",
                other + made[2].identity.sign(wire.digest_of(other), low=False),
                "signature",
            ),
            case("hello-changed", "a second hello", made[2].identity.state(other), fault="equivocation", culprits=[2]),
            case("ready-signature", "lists our hellos: its signature is not looked at", flipped(ready)),
            case("ready-other", "lists another hello of seat 1: a dispute, and no fault yet", other_ready),
            case("ready-other-signature", "the same, last bit flipped", flipped(other_ready), "signature"),
            case("abort", "a notice", made[2].identity.state(abort), fault="aborted", culprits=[]),
            case(
                "abort-high-s",
                "n - s for s",
                abort + made[2].identity.sign(wire.digest_of(abort), low=False),
                "signature",
            ),
            case("abort-other-key", "signed by seat 4", made[4].identity.state(abort), "signature"),
            case(
                "round-2",
                "genuine, and a round too early: it waits",
                made[2].frame(1, wire.Payload(2, [bytes(32)] * 3, b"", b"m"), wire.DIRECT),
            ),
        ],
    }


def flipped(data: bytes) -> bytes:
    """Its last bit."""
    return data[:-1] + bytes([data[-1] ^ 1])


def turned(made: dict[int, wire.Peer]) -> bytes:
    """Seat 2 uses the key of the other direction."""
    clear = wire.sealed_header(TERMS.session, 2, 1, 1, wire.DIRECT)
    return wire.seal(made[2].key(1, 2), clear, wire.Payload(1, [], b"", b"m").encoded())


def redirected(sent: list[dict[str, Any]]) -> bytes:
    """A frame for seat 4 under seat 1's name."""
    entry = next(e for e in sent if (e["from"], e["to"]) == (2, 4))
    frame = bytes.fromhex(entry["frame"])
    return frame[:25] + b"\x01" + frame[26:]


def backwards(made: dict[int, wire.Peer]) -> bytes:
    """The nonce with its sequence in little-endian."""
    clear = wire.sealed_header(TERMS.session, 2, 1, 1, wire.DIRECT)
    cipher = ChaCha20Poly1305(made[2].key(2, 1))
    return clear + cipher.encrypt(bytes(4) + struct.pack("<Q", 1), wire.Payload(1, [], b"", b"m").encoded(), clear)


def main() -> None:
    """Write the files."""
    for name, content in (("ceremony", ceremony(TERMS)), ("two", ceremony(TWO)), ("refused", refused())):
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
