"""Every field of every frame changed, cut, repeated, redirected, taken from elsewhere: dropped, and nothing changes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import Seat, State, Stranger, Table, identity, keygen_terms, signing_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Waiting(NamedTuple):
    """A seat that waits for one frame, and that frame."""

    seat: Seat
    frame: bytes
    table: Table


def stop_before(kind: int, table: Table, number: int = 1) -> Waiting:
    """Run until a frame of that kind is about to reach the seat; what else is under way stays on the link."""
    table.collect()
    while True:
        _, to, frame = table.flying.popleft()
        if to == number and frame[1] == kind:
            return Waiting(table.seats[number], frame, table)
        table.nodes[to].receive(frame, table.now)
        table.collect()


def stop_before_abort(table: Table) -> Waiting:
    """A notice of seat 2 is about to reach seat 1."""
    table.seats[2].abort("test")
    table.flying.clear()
    return stop_before(wire.ABORT, table)


MAKERS: Final[dict[str, Callable[[Table], Waiting]]] = {
    "hello": lambda table: stop_before(wire.HELLO, table),
    "ready": lambda table: stop_before(wire.READY, table),
    "sealed": lambda table: stop_before(wire.SEALED, table),
    "confirmation": lambda table: stop_before(wire.CONFIRM, table),
    "abort": stop_before_abort,
}


@pytest.fixture(params=MAKERS, ids=str)
def waiting(request: pytest.FixtureRequest) -> Iterator[Waiting]:
    # Two signers of a signing; a confirmation that waits to be changed needs a keygen, where it is compared.
    terms = keygen_terms() if request.param == "confirmation" else signing_terms((1, 2))
    with Table(terms) as table:
        yield MAKERS[request.param](table)


def refused(waiting: Waiting, frame: bytes) -> set[str]:
    """Give the seat a frame that must change nothing but one counter; the counter's name."""
    seat = waiting.seat
    before, state, steps = seat.channel.drops(), seat.state, seat.channel.progress().steps
    seat.channel.receive(frame, waiting.table.now)
    after = seat.channel.drops()
    assert seat.state is state
    assert seat.channel.progress().steps == steps
    assert seat.channel.fault() is None
    assert sum(after.values()) == sum(before.values()) + 1
    return {cause for cause, count in after.items() if count != before.get(cause, 0)}


def counts(waiting: Waiting) -> None:
    """The true frame is still taken."""
    steps = waiting.seat.channel.progress().steps
    waiting.seat.channel.receive(waiting.frame, waiting.table.now)
    assert waiting.seat.channel.progress().steps == steps + 1


def test_every_byte_changed(waiting: Waiting) -> None:
    """One bit of each byte (of long frames, of each eleventh) flipped: nothing changes, and the true frame counts."""
    frame = waiting.frame
    sealed = frame[1] == wire.SEALED
    for at in [
        *range(min(len(frame), 200)),
        *range(200, len(frame) - 80, 11),
        *range(max(len(frame) - 80, 200), len(frame)),
    ]:
        changed = bytearray(frame)
        changed[at] ^= 1
        if sealed and 33 >= at >= 30 and changed[34] == frame[34]:
            continue  # another sequence inside the window: test_a_sequence_is_authenticated
        causes = refused(waiting, bytes(changed))
        if at < 18 and at >= 2:
            assert causes == {"session"}
        elif at == 0:
            assert causes == ({"signature"} if frame[1] == wire.HELLO else {"version"})
        elif sealed and at >= wire.SEALED_HEADER:
            assert causes == {"tag"}
        elif frame[1] == wire.READY and at >= len(frame) - 64:
            assert causes == {"transcript"}, "between two it is not signed, and lists two hashes"
        elif frame[1] in wire.TAGS and at >= len(frame) - wire.SIGNATURE:
            assert causes == {"signature"}
    counts(waiting)


def test_every_length_cut(waiting: Waiting) -> None:
    """Cut at every length (of long frames, at each seventh), and longer by one."""
    frame = waiting.frame
    for length in [*range(min(len(frame), 150)), *range(150, len(frame), 7)]:
        assert refused(waiting, frame[:length]) <= {"malformed", "signature", "tag"}
    assert refused(waiting, frame + b"\0") <= {"malformed", "signature", "tag"}
    counts(waiting)


def test_a_repeated_frame_is_harmless(waiting: Waiting) -> None:
    counts(waiting)
    if waiting.seat.state is not State.COMPLETE or waiting.frame[1] == wire.CONFIRM:
        for _ in range(3):
            drops = waiting.seat.channel.drops()
            waiting.seat.channel.receive(waiting.frame, waiting.table.now)
            assert waiting.seat.channel.drops() == {**drops, "repeat": drops.get("repeat", 0) + 1}


def test_of_another_session(waiting: Waiting) -> None:
    """The same ceremony on another day: its frame as it is, and under our session id."""
    terms = keygen_terms(session=2) if waiting.frame[1] == wire.CONFIRM else signing_terms((1, 2), session=2)
    maker = next(maker for name, maker in MAKERS.items() if name.startswith(_name(waiting.frame)))
    with Table(terms) as other:
        foreign = maker(other).frame
    assert refused(waiting, foreign) == {"session"}
    adapted = foreign[:2] + waiting.table.terms.session + foreign[18:]
    assert refused(waiting, adapted) <= {"signature", "tag", "malformed", "transcript"}
    counts(waiting)


def _name(frame: bytes) -> str:
    return {wire.HELLO: "hello", wire.READY: "ready", wire.SEALED: "sealed", wire.CONFIRM: "conf", wire.ABORT: "abort"}[
        frame[1]
    ]


def test_reflected_to_its_sender(waiting: Waiting) -> None:
    """A seat's own frame comes back to it."""
    own = waiting.frame[:18] + struct.pack(">I", 1) + waiting.frame[22:]
    assert refused(waiting, own) == {"sender"}
    counts(waiting)


def test_from_a_seat_that_is_not_there(waiting: Waiting) -> None:
    for sender in (0, 3, 0xFFFFFFFF):
        frame = waiting.frame[:18] + struct.pack(">I", sender) + waiting.frame[22:]
        assert refused(waiting, frame) == {"sender"}
    counts(waiting)


@pytest.mark.parametrize("kind", [0, 8, 255])
def test_of_a_kind_that_does_not_exist(waiting: Waiting, kind: int) -> None:
    assert refused(waiting, waiting.frame[:1] + bytes([kind]) + waiting.frame[2:]) == {"malformed"}
    counts(waiting)


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"\x01" * 22, b"\x0a\x20type.googleapis.com/binance"], ids=repr)
def test_what_is_no_frame_at_all(waiting: Waiting, data: bytes) -> None:
    """A bare tss-lib message, JSON, nothing: a sealed channel has no ear for it (there is no way down to plain)."""
    assert refused(waiting, data) <= {"malformed", "version", "session"}
    counts(waiting)


# ---- Sealed frames between three ----


@pytest.fixture
def three() -> Iterator[Waiting]:
    """Seat 1 waits for its first sealed frame, from seat 2."""
    with Table(signing_terms()) as table:
        yield stop_before(wire.SEALED, table)


def test_sealed_for_another_pair(three: Waiting) -> None:
    """A frame from 2 to 3, given to 1; then with its receiver rewritten."""
    table = three.table
    table.collect()
    other = next(frame for sender, to, frame in table.flying if sender == 2 and to == 3 and frame[1] == wire.SEALED)
    assert refused(three, other) == {"receiver"}
    assert refused(three, other[:22] + struct.pack(">I", 1) + other[26:]) == {"tag"}
    renamed = other[:18] + struct.pack(">I", 3) + struct.pack(">I", 1) + other[26:]
    assert refused(three, renamed) == {"tag"}
    counts(three)


def test_sealed_in_the_other_direction(three: Waiting) -> None:
    """A frame of our own, with the ends exchanged."""
    table = three.table
    table.collect()
    own = next(frame for sender, to, frame in table.flying if sender == 1 and to == 2 and frame[1] == wire.SEALED)
    assert refused(three, own) == {"sender"}
    turned = own[:18] + struct.pack(">II", 2, 1) + own[26:]
    assert refused(three, turned) == {"tag"}
    counts(three)


@pytest.mark.parametrize("sequence", [0, 64, 65, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_a_sequence_outside_the_window(three: Waiting, sequence: int) -> None:
    """The ready was 0, so the window is 1..64; beyond 2^32-1 nothing may come, ever."""
    frame = three.frame[:26] + struct.pack(">Q", sequence) + three.frame[34:]
    assert refused(three, frame) == {"tag" if sequence == 64 else "sequence"}
    counts(three)


def test_a_sequence_is_authenticated(three: Waiting) -> None:
    for sequence in range(2, 60):
        frame = three.frame[:26] + struct.pack(">Q", sequence) + three.frame[34:]
        assert refused(three, frame) == {"tag"}
    counts(three)


def test_a_class_is_authenticated(three: Waiting) -> None:
    class_ = three.frame[34]
    assert refused(three, three.frame[:34] + bytes([3 - class_]) + three.frame[35:]) == {"tag"}
    for none in (0, 3, 255):
        assert refused(three, three.frame[:34] + bytes([none]) + three.frame[35:]) == {"malformed"}
    counts(three)


def test_a_frame_longer_than_any_may_be(three: Waiting) -> None:
    assert refused(three, three.frame.ljust(260 * 1024 + 1, b"\0")) == {"malformed"}
    assert refused(three, three.frame.ljust(260 * 1024, b"\0")) == {"tag"}
    counts(three)


def test_forged_frames_take_no_place(three: Waiting) -> None:
    """However many forgeries come before it, the true frame finds room."""
    for _ in range(200):
        refused(three, three.frame[:-1] + bytes([three.frame[-1] ^ 1]))
    counts(three)


@pytest.mark.parametrize("wanted", [2**64 - 1, 2**32, 100])
def test_an_ack_for_what_was_never_sent(three: Waiting, wanted: int) -> None:
    assert refused(three, wire.ack(three.table.terms.session, 2, 1, wanted)) == {"ack"}


def test_an_ack_for_another(three: Waiting) -> None:
    assert refused(three, wire.ack(three.table.terms.session, 2, 3, 0)) == {"receiver"}
    assert refused(three, wire.ack(three.table.terms.session, 2, 1, 0) + b"\0") == {"malformed"}
    assert refused(three, wire.ack(three.table.terms.session, 1, 2, 0)) == {"sender"}


def test_acks_cause_one_resend_in_half_a_second(three: Waiting) -> None:
    seat, session = three.seat, three.table.terms.session
    sent = [frame for sender, to, frame in three.table.flying if (sender, to) == (1, 2)]
    assert [frame[1] for frame in sent] == [wire.READY, wire.SEALED, wire.SEALED]
    for now, wanted, resent in ((1000, 0, 3), (1001, 0, 0), (1499, 0, 0), (1500, 1, 2), (1999, 1, 0), (2000, 2, 1)):
        seat.channel.receive(wire.ack(session, 2, 1, wanted), now)
        again = [frame.data for frame in seat.channel.outgoing()]
        assert again == (sent[-resent:] if resent else []), "the same bytes, or nothing"
    assert seat.channel.drops() == {"ack": 3}


def test_every_byte_of_an_ack_changed(three: Waiting) -> None:
    """Nobody signs it: at worst it makes us send again what we sent, byte for byte, to the seat that it names."""
    seat = three.seat
    sent = {(to, frame) for sender, to, frame in three.table.flying if sender == 1}
    ack = wire.ack(three.table.terms.session, 2, 1, 1)
    for at in range(len(ack)):
        for bit in range(8):
            changed = bytearray(ack)
            changed[at] ^= 1 << bit
            now = 1000 * (8 * at + bit + 1)
            steps = seat.channel.progress().steps
            seat.channel.receive(bytes(changed), now)
            again = {(frame.to, frame.data) for frame in seat.channel.outgoing()}
            assert again <= sent
            assert {to for to, _ in again} <= {int.from_bytes(changed[18:22])}
            assert (seat.channel.fault(), seat.channel.progress().steps) == (None, steps)
    counts(three)


def test_every_byte_of_a_shown_broadcast_changed() -> None:
    """The one that is true convicts its sender of a second version; no change of it convicts anybody of anything."""
    with Table(signing_terms(), {2: Stranger, 3: Stranger}) as table:
        table.collect()
        seat, stranger = table.seats[1], table.nodes[2]
        assert isinstance(stranger, Stranger)
        while seat.channel.progress().round < 2:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        waiting = Waiting(seat, stranger.peer.signed_broadcast(1, b"another"), table)
        for at in range(len(waiting.frame)):
            changed = bytearray(waiting.frame)
            changed[at] ^= 1
            causes = refused(waiting, bytes(changed))
            if at >= len(changed) - wire.SIGNATURE - 32:
                assert causes == {"signature"}
        for length in range(len(waiting.frame)):
            refused(waiting, waiting.frame[:length])
        same = stranger.peer.broadcasts[1][2]
        held = wire.broadcast_body(table.terms.session, 2, seat.channel.transcript, 1, same)
        assert refused(waiting, stranger.peer.ephemeral.state(held)) == {"repeat"}
        counts(waiting)
        fault = seat.channel.fault()
        assert fault is not None
        assert (fault.reason, fault.culprits) == ("equivocation", (2,))


# ---- Statements under a malleated signature ----


@pytest.mark.parametrize("kind", ["hello", "confirmation", "abort"])
def test_a_high_s_is_refused(kind: str) -> None:
    """(r, n - s) verifies under the same key, and anybody can make it."""
    with Table(keygen_terms() if kind == "confirmation" else signing_terms((1, 2))) as table:
        waiting = MAKERS[kind](table)
        body = waiting.frame[: -wire.SIGNATURE]
        assert refused(waiting, body + identity(2).sign(wire.digest_of(body), low=False)) == {"signature"}
        counts(waiting)


@pytest.mark.parametrize("kind", ["hello", "confirmation", "abort"])
@pytest.mark.parametrize("signer", [1, 9])
def test_signed_by_another_identity(kind: str, signer: int) -> None:
    with Table(keygen_terms() if kind == "confirmation" else signing_terms((1, 2))) as table:
        waiting = MAKERS[kind](table)
        assert refused(waiting, identity(signer).state(waiting.frame[: -wire.SIGNATURE])) == {"signature"}
        counts(waiting)


@pytest.mark.parametrize("kind", ["hello", "confirmation", "abort"])
def test_signed_under_another_tag(kind: str) -> None:
    with Table(keygen_terms() if kind == "confirmation" else signing_terms((1, 2))) as table:
        waiting = MAKERS[kind](table)
        body = waiting.frame[: -wire.SIGNATURE]
        others = {b"", b"tssd/1/pins", b"tssd/1/succession", b"tssd/1/checkpoint", *wire.TAGS.values()}
        for tag in others - {wire.TAGS[body[1]]}:
            assert refused(waiting, body + identity(2).sign(wire.sha256(tag, b"\0", body))) == {"signature"}
        counts(waiting)


def test_a_statement_signed_again_is_the_same_statement() -> None:
    """ECDSA has many signatures for one statement: repeating it under another is no second version."""

    class SignsAgain(Stranger):
        def confirmation(self) -> bytes | None:
            first = super().confirmation()
            assert first is not None
            self.out.append((None, first))
            return _signed_again(first)

    with Table(keygen_terms(), {2: SignsAgain}) as table:
        stranger = table.nodes[2]
        stranger.out.append((None, _signed_again(stranger.hellos[2])))  # type: ignore[union-attr]
        table.deliver()
        assert table.states() == [State.COMPLETE]
        assert table.seats[1].channel.fault() is None
        assert table.seats[1].channel.drops() == {"repeat": 2}


def _signed_again(statement: bytes) -> bytes:
    """The same body under a signature with another nonce."""
    body = statement[: -wire.SIGNATURE]
    digest = wire.digest_of(body)
    signature = identity(2).sign(digest, fresh=True)
    assert signature != statement[-wire.SIGNATURE :]
    return body + signature
