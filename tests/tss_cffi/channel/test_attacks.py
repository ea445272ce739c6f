"""Each attack on the channel by name, with the outcome that docs/channel.md gives it. Seats 1 and 2 are ours."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import pytest

from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import (
    Seat,
    State,
    Stranger,
    Table,
    channel,
    ephemeral,
    identities,
    identity,
    keygen_terms,
    signing_terms,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.tss_cffi.channel.independent import Terms

COMPLETE, FAILED = State.COMPLETE, State.FAILED


def fault_of(seat: Seat) -> channel.ChannelFault:
    """What it says is wrong."""
    fault = seat.channel.fault()
    assert fault is not None
    return fault


def is_convicted(fault: channel.ChannelFault, culprit: int, tag_key: bytes | None = None) -> None:
    """The fault names the culprit, and its two signed statements prove it to anybody."""
    assert fault.reason == "equivocation"
    assert fault.culprits == (culprit,)
    first, second = fault.evidence
    assert first[: -wire.SIGNATURE] != second[: -wire.SIGNATURE]
    for statement in fault.evidence:
        body, signature = statement[: -wire.SIGNATURE], statement[-wire.SIGNATURE :]
        if tag_key is None:
            assert channel.identity_verify(identity(culprit).public, wire.digest_of(body), signature)
        else:
            assert wire.ephemeral_signed(statement, tag_key)


# ---- Hellos that differ ----

OTHER_KEY: Final = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
DIFFERENT: Final[dict[str, tuple[Callable[[Terms], Terms], str, str]]] = {
    "ceremony type": (lambda t: dataclasses.replace(t, kind=wire.ROTATION), "2", "3"),
    "protocol profile": (lambda t: dataclasses.replace(t, protocol=2), "1", "2"),
    "committee, place 2": (
        lambda t: dataclasses.replace(t, committee=[(1, "user1-server"), (3, "user2-server")]),
        "seat 2 user2-server",
        "seat 3 user2-server",
    ),
    "committee, place 1": (
        lambda t: dataclasses.replace(t, committee=[(1, "mallory-server"), (2, "user2-server")]),
        "seat 1 user1-server",
        "seat 1 mallory-server",
    ),
    "number of parties": (
        lambda t: dataclasses.replace(t, committee=[*t.committee, (3, "user3-server")]),
        "2",
        "3",
    ),
    "threshold": (lambda t: dataclasses.replace(t, threshold=3), "2", "3"),
    "share generation": (lambda t: dataclasses.replace(t, generation=7), "0", "7"),
    "public key": (lambda t: dataclasses.replace(t, public_key=OTHER_KEY), "{key}", OTHER_KEY.hex()),
    "message hash": (lambda t: dataclasses.replace(t, digest=bytes(32)), "{digest}", "00" * 32),
}


def hello_of(terms: Terms, seat: int = 2, keys: Mapping[str, bytes] | None = None, party_id: str = "") -> bytes:
    """A signed hello of a seat, with identity, x25519, ed25519 or party id of the attacker's choice."""
    own = ephemeral(f"{seat}")
    ed25519 = own.ed25519 if len(terms.committee) > wire.TWO else wire.NO_KEY
    stated = {"identity": identity(seat).public, "x25519": own.x25519, "ed25519": ed25519, **(keys or {})}
    name = party_id or f"user{seat}-server"
    body = wire.hello_body(terms, seat, stated["identity"], stated["x25519"], stated["ed25519"], name)
    return identity(seat).state(body)


@pytest.mark.parametrize("field", DIFFERENT)
def test_a_hello_that_states_another_ceremony_is_told_with_both_values(field: str) -> None:
    terms = signing_terms((1, 2))
    change, ours, theirs = DIFFERENT[field]
    seat = Seat(terms, 1)
    seat.channel.receive(hello_of(change(terms)), 0)
    fault = fault_of(seat)
    ours = ours.format(key=terms.public_key.hex(), digest=terms.digest.hex())
    assert (fault.reason, fault.by, fault.culprits) == ("hello-differs", 2, ())
    assert fault.detail == f"{field}: ours {ours}, theirs {theirs}"
    assert seat.state is FAILED
    assert seat.party is None, "no share was opened"
    seat.close()


@pytest.mark.parametrize("field", ["public key", "message hash"])
def test_a_hello_that_leaves_out_what_ours_has(field: str) -> None:
    terms = signing_terms((1, 2))
    if field == "public key":
        theirs, ours = dataclasses.replace(terms, public_key=b""), terms.public_key
    else:
        theirs, ours = dataclasses.replace(terms, digest=b""), terms.digest
    seat = Seat(terms, 1)
    seat.channel.receive(hello_of(theirs), 0)
    assert fault_of(seat).reason == "hello-differs"
    assert fault_of(seat).detail == f"{field}: ours {ours.hex()}, theirs none"
    seat.close()


@pytest.mark.parametrize("field", ["party id", "identity key"])
def test_a_hello_of_another_sender_under_the_pinned_key(field: str) -> None:
    seat = Seat(signing_terms((1, 2)), 1)
    mallory = identity(9).public
    if field == "party id":
        hello, ours, theirs = hello_of(seat.terms, party_id="m-x"), "user2-server", "m-x"
    else:
        hello, ours, theirs = hello_of(seat.terms, keys={"identity": mallory}), identity(2).public.hex(), mallory.hex()
    seat.channel.receive(hello, 0)
    assert fault_of(seat).reason == "hello-differs"
    assert fault_of(seat).detail == f"{field}: ours {ours}, theirs {theirs}"
    seat.close()


def test_a_downgrade_by_the_network_is_not_heard_and_one_by_the_peer_is_told() -> None:
    seat = Seat(signing_terms((1, 2)), 1)
    hello = hello_of(seat.terms)
    seat.channel.receive(b"\0" + hello[1:], 0)
    seat.channel.receive(hello[:23] + b"\x02" + hello[24:], 0)
    assert seat.channel.drops() == {"signature": 2}
    assert seat.state is State.HELLO
    body = b"\x02" + hello[1 : -wire.SIGNATURE]
    seat.channel.receive(body + identity(2).sign(wire.sha256(wire.TAGS[wire.HELLO], b"\0", body)), 0)
    assert fault_of(seat).detail == "channel version: ours 1, theirs 2"
    assert fault_of(seat).culprits == ()
    seat.close()


def test_a_signed_hello_that_does_not_decode() -> None:
    seat = Seat(signing_terms((1, 2)), 1)
    seat.channel.receive(identity(2).state(hello_of(seat.terms)[: -wire.SIGNATURE] + b"\0"), 0)
    assert fault_of(seat).reason == "hello-differs"
    assert fault_of(seat).detail == "a signed hello that does not decode"
    seat.close()


# ---- Ephemeral keys ----


@pytest.mark.parametrize("which", ["x25519", "ed25519"])
@pytest.mark.parametrize("copied", [1, 2])
def test_an_ephemeral_key_of_another_seat(which: str, copied: int) -> None:
    """Seat 3 shows a key of seat 1 (ours) or 2: it could be read, or spoken for. Who copied cannot be told."""
    terms = signing_terms()
    with Table(terms, {2: Stranger}) as table:
        del table.nodes[3]
        seat, other = table.seats[1], table.nodes[2]
        assert isinstance(other, Stranger)
        own = seat.outgoing()[0][1]
        keys = other.peer.ephemeral
        at = own.index(identity(1).public) + 33
        taken = {
            1: {"x25519": own[at : at + 32], "ed25519": own[at + 32 : at + 64]},
            2: {"x25519": keys.x25519, "ed25519": keys.ed25519},
        }[copied]
        seat.receive(other.hellos[2], 0)
        seat.receive(hello_of(terms, 3, {which: taken[which]}), 0)
        fault = fault_of(seat)
        assert (fault.reason, fault.culprits) == ("ephemeral-key", ())
        assert fault.detail == f"seats {copied} and 3 have the same ephemeral key"


P: Final = 2**255 - 19
# RFC 7748, section 6.1; the points of order 1, 2, 4, 8 on the curve and its twist, and their other encodings.
LOW_X25519: Final = {
    "0": 0,
    "1": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order 8, the other": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    "p-1": P - 1,
    "p": P,
    "p+1": P + 1,
    "0, top bit set": 2**255,
}
LOW_ED25519: Final = {
    "order 1": "0100000000000000000000000000000000000000000000000000000000000000",
    "order 1, other sign": "0100000000000000000000000000000000000000000000000000000000000080",
    "order 2": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 4": "0000000000000000000000000000000000000000000000000000000000000000",
    "order 4, other sign": "0000000000000000000000000000000000000000000000000000000000000080",
    "order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, negative": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "order 8, the other": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "order 4, not canonical": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 1, not canonical": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}


@pytest.mark.parametrize("point", LOW_X25519)
def test_an_x25519_key_of_low_order_convicts(point: str) -> None:
    seat = Seat(signing_terms((1, 2)), 1)
    hello = hello_of(seat.terms, keys={"x25519": LOW_X25519[point].to_bytes(32, "little")})
    seat.channel.receive(hello, 0)
    fault = fault_of(seat)
    assert (fault.reason, fault.culprits, fault.evidence) == ("ephemeral-key", (2,), (hello,))
    seat.close()


@pytest.mark.parametrize("point", LOW_ED25519)
def test_an_ed25519_key_of_low_order_convicts(point: str) -> None:
    seat = Seat(signing_terms(), 1)
    hello = hello_of(seat.terms, keys={"ed25519": bytes.fromhex(LOW_ED25519[point])})
    seat.channel.receive(hello, 0)
    seat.channel.receive(hello_of(seat.terms, 3), 0)
    fault = fault_of(seat)
    assert (fault.reason, fault.culprits, fault.evidence) == ("ephemeral-key", (2,), (hello,))
    seat.close()


# ---- Two hellos ----


def test_two_different_hellos_convict() -> None:
    seat = Seat(signing_terms(), 1)
    seat.channel.receive(hello_of(seat.terms), 0)
    assert seat.channel.fault() is None
    seat.channel.receive(hello_of(seat.terms, keys={"x25519": ephemeral("other").x25519}), 0)
    is_convicted(fault_of(seat), 2)
    assert seat.state is FAILED
    seat.close()


def test_a_later_hello_does_not_take_the_place_of_evidence() -> None:
    terms = signing_terms()
    seat = Seat(terms, 1)
    first, second = hello_of(terms), hello_of(terms, keys={"x25519": ephemeral("other").x25519})
    for hello in (first, second, hello_of(dataclasses.replace(terms, generation=7), 3)):
        seat.channel.receive(hello, 0)
    is_convicted(fault_of(seat), 2)
    assert fault_of(seat).evidence == (first, second)
    seat.close()


def test_the_evidence_is_that_of_the_first_fault() -> None:
    terms = signing_terms()
    seat = Seat(terms, 1)
    hellos = [hello_of(dataclasses.replace(terms, generation=number), number) for number in (2, 3)]
    for hello in hellos:
        seat.channel.receive(hello, 0)
    assert (fault_of(seat).by, fault_of(seat).evidence) == (2, (hellos[0],))
    seat.close()


class TwoHellos(Stranger):
    """Seat 3 shows seat 2 another hello than seat 1, and keeps to the first otherwise."""

    def outgoing(self) -> list[tuple[int | None, bytes]]:
        out = super().outgoing()
        if (None, self.hellos[3]) in out:
            other = hello_of(self.terms, 3)
            out.remove((None, self.hellos[3]))
            out += [(1, self.hellos[3]), (2, other)]
        return out


def test_two_hellos_to_two_seats_come_out_with_the_readies() -> None:
    with Table(signing_terms(), {3: TwoHellos}) as table:
        table.deliver()
        for seat in table.seats.values():
            is_convicted(fault_of(seat), 3)
            assert seat.state is FAILED
        assert table.now == 0


def test_a_hello_that_changes_after_the_start_convicts() -> None:
    with Table(signing_terms(), {3: Stranger}) as table:
        table.collect()
        while table.seats[1].channel.progress().round < 4:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        table.seats[1].receive(hello_of(table.terms, 3), 0)
        is_convicted(fault_of(table.seats[1]), 3)
        table.deliver()
        is_convicted(fault_of(table.seats[2]), 3)
        assert table.states() == [FAILED, FAILED]


class LiesInReady(Stranger):
    """Seat 3 tells seat 1 that it holds another hello of seat 2."""

    def ready(self) -> dict[int, bytes]:
        hashes = [wire.sha256(body) for body in self.peer.bodies()]
        hashes[1] = bytes(32)
        lie = self.peer.ephemeral.state(wire.ready_body(self.terms.session, 3, hashes))
        return {1: lie, 2: self.peer.ready()}


def test_ready_lists_that_differ_blame_nobody_without_proof() -> None:
    with Table(signing_terms(), {3: LiesInReady}) as table:
        table.deliver()
        assert table.seats[1].channel.fault() is None, "seat 1 waits for proof"
        assert table.seats[1].state is State.RUNNING
        table.wait(6000)
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.by, fault.culprits) == ("ready-differs", 3, ())
        assert fault.detail == "seats 1 and 3 hold different hellos of seat 2"
        assert table.states() == [FAILED, FAILED], "seat 2 learns it from seat 1"
        assert fault_of(table.seats[2]).reason == "aborted"
        assert fault_of(table.seats[2]).by == 1


def unsigned(statement: bytes) -> bytes:
    """The statement with a bit of its signature changed."""
    return statement[:-1] + bytes([statement[-1] ^ 1])


ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def malleated(statement: bytes) -> bytes:
    """The statement under the other S of the same signature, S + L: RFC 8032, 5.1.7 refuses it."""
    s = int.from_bytes(statement[-32:], "little") + ED25519_ORDER
    return statement[:-32] + s.to_bytes(32, "little")


def agreed_with(table: Table) -> tuple[Seat, Stranger]:
    """Our seat 1, which waits for the readies of seat 2 (ours) and 3, and the stranger in seat 3."""
    table.collect()
    seat, stranger = table.seats[1], table.nodes[3]
    assert isinstance(stranger, Stranger)
    while table.flying:
        _, to, frame = table.flying.popleft()
        table.nodes[to].receive(frame, 0)
    assert stranger.party is not None
    assert seat.state is State.RUNNING
    return seat, stranger


def other_ready(stranger: Stranger) -> bytes:
    """The stranger's ready with another hello of seat 2, signed."""
    hashes = [wire.sha256(body) for body in stranger.peer.bodies()]
    hashes[1] = bytes(32)
    return stranger.peer.ephemeral.state(wire.ready_body(stranger.terms.session, stranger.seat, hashes))


def test_a_ready_that_lists_our_hellos_is_taken_unchecked_and_proved_by_the_first_frame() -> None:
    with Table(signing_terms(), {3: Stranger}) as table:
        seat, stranger = agreed_with(table)
        drops = seat.channel.drops()
        seat.receive(unsigned(stranger.peer.ready()), 0)
        assert (seat.channel.drops(), seat.channel.fault()) == (drops, None)
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]


@pytest.mark.parametrize("spoilt", [unsigned, malleated])
def test_a_ready_that_lists_other_hellos_unsigned_opens_no_dispute(spoilt: Callable[[bytes], bytes]) -> None:
    with Table(signing_terms(), {3: Stranger}) as table:
        seat, stranger = agreed_with(table)
        seat.receive(spoilt(other_ready(stranger)), 0)
        assert seat.channel.drops()["signature"] == 1
        seat.receive(stranger.peer.ready(), 0)
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]


def test_a_forged_ready_does_not_hide_the_true_one_that_differs() -> None:
    with Table(signing_terms(), {3: Stranger}) as table:
        seat, stranger = agreed_with(table)
        seat.receive(unsigned(stranger.peer.ready()), 0)
        seat.receive(other_ready(stranger), 0)
        seat.tick(0)
        seat.tick(6000)
        fault = fault_of(seat)
        assert (fault.reason, fault.by, fault.culprits) == ("ready-differs", 3, ())


def test_who_has_sealed_a_frame_holds_our_hellos_whatever_it_lists_later() -> None:
    with Table(signing_terms(), {3: Stranger}) as table:
        seat, stranger = agreed_with(table)
        seat.receive(stranger.peer.ready(), 0)
        for to, frame in stranger.outgoing():
            if to == 1 and frame[1] == wire.SEALED:
                seat.receive(frame, 0)
        drops = seat.channel.drops().get("repeat", 0)
        seat.receive(other_ready(stranger), 0)
        assert seat.channel.drops()["repeat"] == drops + 1
        assert seat.channel.fault() is None


def test_hellos_are_repeated_until_a_frame_shows_that_they_came() -> None:
    """A ready in the peer's name shows nothing: anybody can make it."""
    with Table(signing_terms(), {3: Stranger}) as table:
        seat, stranger = agreed_with(table)
        seat.receive(unsigned(stranger.peer.ready()), 0)
        seat.outgoing()
        seat.tick(0)
        seat.tick(1000)
        assert {frame.to for frame in seat.channel.outgoing() if frame.data[1] == wire.HELLO} & {None, 3}


# ---- Broadcasts and echoes ----


def changed(message: bytes) -> bytes:
    """A protocol message whose last value differs in a bit."""
    return message[:-1] + bytes([message[-1] ^ 1])


def two_versions(round_: int) -> type[Stranger]:
    """Seat 3 broadcasts one version in that round to seat 1, and another to seat 2."""

    class TwoVersions(Stranger):
        minds_echo = False

        def said(self, note: wire.Note) -> dict[int, bytes]:
            if note.to is not None or note.round != round_:
                return super().said(note)
            other = changed(note.data)
            signature = self.peer.signed_broadcast(note.round, other)[-wire.SIGNATURE :]
            payload = wire.Payload(note.round, self.peer.echo(note.round), signature, other)
            to_second = self.peer.frame(2, payload, wire.TO_ALL)
            self.peer.sequences[2] -= 1
            frames = super().said(note)
            return {1: frames[1], 2: to_second}

    return TwoVersions


@pytest.mark.parametrize("round_", [1, 3, 5, 7])
def test_a_broadcast_in_two_versions_convicts_its_sender(round_: int) -> None:
    """The rounds in which GG18 broadcasts what no later check of ours binds at once: commitments and theta."""
    with Table(signing_terms(), {3: two_versions(round_)}) as table:
        table.deliver()
        stranger = table.nodes[3]
        assert isinstance(stranger, Stranger)
        for seat in table.seats.values():
            is_convicted(fault_of(seat), 3, stranger.peer.ephemeral.ed25519)
            assert seat.state is FAILED
            assert seat.channel.progress().round <= round_ + 1, "no step to the round after the next"


def test_a_last_broadcast_in_two_versions_convicts_and_the_signature_still_arrives() -> None:
    """Seat 2 gets a wrong signature share and cannot finish; seat 1 can, and its confirmation completes both."""
    with Table(signing_terms(), {3: two_versions(9)}) as table:
        table.deliver()
        stranger = table.nodes[3]
        assert isinstance(stranger, Stranger)
        assert table.states() == [COMPLETE, COMPLETE]
        assert table.seats[1].channel.signature() == table.seats[2].channel.signature() is not None
        for seat in table.seats.values():
            is_convicted(fault_of(seat), 3, stranger.peer.ephemeral.ed25519)


def lying_echo(about: int) -> type[Stranger]:
    """Seat 3 claims to seat 1 that seat `about` broadcast something else in round 1."""

    class LyingEcho(Stranger):
        def said(self, note: wire.Note) -> dict[int, bytes]:
            if note.to != 1 or note.round != 2:
                return super().said(note)
            echo = self.peer.echo(2)
            echo[about - 1] = bytes(32)
            return {1: self.peer.frame(1, wire.Payload(2, echo, b"", note.data), wire.DIRECT)}

    return LyingEcho


@pytest.mark.parametrize("about", [1, 2, 3])
def test_an_echo_that_lies_blames_nobody(about: int) -> None:
    with Table(signing_terms(), {3: lying_echo(about)}) as table:
        table.deliver()
        assert table.seats[1].state is State.RUNNING
        table.wait(6000)
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.by, fault.culprits) == ("echo-differs", 3, ())
        assert fault.detail == f"round 1: seats 1 and 3 hold different broadcasts of seat {about}"
        assert table.states() == [FAILED, FAILED]


def test_a_forged_statement_about_a_broadcast_convicts_nobody() -> None:
    """Shown by whom it may: only the broadcaster's own key makes a second version."""
    with Table(signing_terms()) as table:
        table.deliver()
        seat = table.seats[1]
        forged = wire.broadcast_body(table.terms.session, 2, seat.channel.transcript, 1, bytes(32))
        other = wire.broadcast_body(table.terms.session, 2, bytes(32), 1, bytes(32))
        never = wire.broadcast_body(table.terms.session, 2, seat.channel.transcript, 200, bytes(32))
        for body in (forged, other, never):
            seat.channel.receive(ephemeral("forger").state(body), 0)
        assert seat.channel.drops() == {"signature": 1, "transcript": 1, "state": 1}
        assert seat.channel.fault() is None


# ---- Frames with a good tag that break the rules ----


def breaking(
    change: Callable[[wire.Payload, wire.Peer], wire.Payload], *, direct: bool = False, from_round: int = 1
) -> type[Stranger]:
    """Seat 3 changes what is inside its first broadcast (or direct) frame to seat 1 of that round or a later one."""

    class Breaking(Stranger):
        broken = False

        def said(self, note: wire.Note) -> dict[int, bytes]:
            frames = super().said(note)
            if self.broken or (note.to is not None) != direct or 1 not in frames or note.round < from_round:
                return frames
            self.broken = True
            class_ = frames[1][34]
            opened = wire.unseal(self.peer.key(3, 1), frames[1])
            assert opened is not None
            payload = change(wire.read_payload(opened, class_, len(self.peer.seats)), self.peer)
            self.peer.sequences[1] -= 1
            return {**frames, 1: self.peer.frame(1, payload, class_)}

    return Breaking


BROKEN: Final[dict[str, tuple[Callable[[wire.Payload, wire.Peer], wire.Payload], str]]] = {
    "round 0": (lambda p, _: p._replace(round=0), "seat 3: a message of a round that is over, or far ahead"),
    "round 3": (lambda p, _: p._replace(round=3), "seat 3: a message of a round that is over, or far ahead"),
    "round 65535": (lambda p, _: p._replace(round=65535), "seat 3: a message of a round that is over, or far ahead"),
    "echo in round 1": (lambda p, _: p._replace(echo=[bytes(32)] * 3), "seat 3: an echo of the wrong length"),
    "cut": (lambda p, _: p._replace(signature=b"", message=b""), "seat 3: a payload of no known layout"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_genuine_frame_that_breaks_the_rules_is_its_senders_doing(name: str) -> None:
    change, detail = BROKEN[name]
    with Table(signing_terms(), {3: breaking(change)}) as table:
        table.deliver()
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits, fault.detail) == ("payload", (3,), detail)
        heard = fault_of(table.seats[2])
        assert (heard.reason, heard.by, heard.culprits, heard.hearsay) == ("aborted", 1, (), (3,))


# ---- Broadcasts without their signature: it is needed, and looked at, when versions differ ----

UNSIGNED: Final = "seat 3: a broadcast without its signature"


@pytest.mark.parametrize("of", ["nobody", "another round", "another message"])
def test_a_broadcast_without_its_signature_that_is_the_same_for_all_harms_nobody(of: str) -> None:
    """Consistency is the echo's work: with one version there is nothing to convict anybody of."""
    signature: Callable[[wire.Payload, wire.Peer], bytes] = {
        "nobody": lambda _, __: bytes(64),
        "another round": lambda p, peer: peer.signed_broadcast(2, p.message)[-wire.SIGNATURE :],
        "another message": lambda p, peer: peer.signed_broadcast(1, changed(p.message))[-wire.SIGNATURE :],
    }[of]
    with Table(signing_terms(), {3: breaking(lambda p, peer: p._replace(signature=signature(p, peer)))}) as table:
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]
        assert [seat.channel.fault() for seat in table.seats.values()] == [None, None]


def versions(round_: int, *, signed: bool) -> type[Stranger]:
    """Seat 3 broadcasts two versions in that round, to seat 1 one unsigned, to seat 2 one signed or not."""

    class Versions(Stranger):
        minds_echo = False

        def said(self, note: wire.Note) -> dict[int, bytes]:
            frames = super().said(note)
            if note.to is not None or note.round != round_:
                return frames
            unsigned = wire.Payload(note.round, self.peer.echo(note.round), bytes(wire.SIGNATURE), changed(note.data))
            self.peer.sequences[1] -= 1
            frames[1] = self.peer.frame(1, unsigned, wire.TO_ALL)
            if not signed:
                self.peer.sequences[2] -= 1
                frames[2] = self.peer.frame(2, unsigned._replace(message=note.data), wire.TO_ALL)
            return frames

    return Versions


@pytest.mark.parametrize("round_", [1, 3, 5, 7])
def test_a_version_without_its_signature_is_its_senders_doing(round_: int) -> None:
    """Who got it blames the sender; who got a signed one cannot tell the sender's lie from the other's."""
    with Table(signing_terms(), {3: versions(round_, signed=True)}) as table:
        table.deliver()
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits, fault.detail, fault.evidence) == ("payload", (3,), UNSIGNED, ())
        table.wait(6000)
        heard = fault_of(table.seats[2])
        assert (heard.reason, heard.by, heard.culprits, heard.hearsay) == ("echo-differs", 1, (), (3,))
        assert table.states() == [FAILED, FAILED]
        for seat in table.seats.values():
            assert seat.channel.progress().round <= round_ + 1, "no step to the round after the next"


def test_two_versions_without_a_signature_are_their_senders_doing() -> None:
    with Table(signing_terms(), {3: versions(1, signed=False)}) as table:
        table.deliver()
        assert table.states() == [FAILED, FAILED]
        reasons = {(fault_of(seat).reason, fault_of(seat).culprits) for seat in table.seats.values()}
        assert reasons <= {("payload", (3,)), ("aborted", ())}
        assert ("payload", (3,)) in reasons


def test_a_last_version_without_its_signature_and_the_others_signature_still_arrives() -> None:
    with Table(signing_terms(), {3: versions(9, signed=True)}) as table:
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits) == ("payload", (3,))
        assert table.seats[2].channel.fault() is None


def test_a_signed_version_shown_to_one_who_holds_an_unsigned_one() -> None:
    """Both are the broadcaster's own: the one under the tag of its frame, the other under its signature."""
    change = breaking(lambda p, _: p._replace(signature=bytes(wire.SIGNATURE)))
    with Table(signing_terms(), {3: change}) as table:
        table.collect()
        seat, stranger = table.seats[1], table.nodes[3]
        assert isinstance(stranger, Stranger)
        while seat.channel.progress().round < 4:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        seat.receive(stranger.peer.signed_broadcast(1, b"other"), 0)
        fault = fault_of(seat)
        assert (fault.reason, fault.culprits, fault.detail) == ("payload", (3,), UNSIGNED)
        assert seat.state is FAILED


def test_a_message_that_breaks_the_protocol_is_the_partys_fault() -> None:
    """The channel passes on whom the protocol names."""
    garbage = breaking(lambda p, _: p._replace(message=b"\xff" * 50), direct=True)
    with Table(signing_terms(), {3: garbage}) as table:
        table.deliver()
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits) == ("party", (3,))
        assert fault.detail.startswith("round 1, malformed: ")


LAST: Final[dict[str, Callable[[wire.Payload, wire.Peer], wire.Payload]]] = {
    "payload": lambda p, _: p._replace(echo=p.echo[:2]),
    "party": lambda p, peer: p._replace(
        message=b"\xff", signature=peer.signed_broadcast(9, b"\xff")[-wire.SIGNATURE :]
    ),
}


@pytest.mark.parametrize("reason", LAST)
def test_who_breaks_the_rules_in_the_last_round_of_a_signing_fails_nobody_alone(reason: str) -> None:
    """Seat 2 has the signature by then, and seat 1 gets it from there; who broke the rules is told."""
    with Table(signing_terms(), {3: breaking(LAST[reason], from_round=9)}) as table:
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]
        assert (fault_of(table.seats[1]).reason, fault_of(table.seats[1]).culprits) == (reason, (3,))


def test_who_breaks_the_rules_in_the_last_round_is_named_when_no_signature_comes() -> None:
    class BreaksAndIsAlone(breaking(LAST["payload"], from_round=9)):  # type: ignore[misc]
        """It sends seat 2 no last message at all, and keeps the signature to itself."""

        def said(self, note: wire.Note) -> dict[int, bytes]:
            frames: dict[int, bytes] = super().said(note)
            return {1: frames[1]} if note.round == 9 else frames

        def confirmation(self) -> None:
            return None

    with Table(signing_terms(), {3: BreaksAndIsAlone}) as table:
        table.deliver()
        assert table.states() == [State.RUNNING, State.RUNNING]
        table.wait(6000)
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits) == ("payload", (3,))
        table.wait(6000)
        assert table.states() == [FAILED, FAILED]
        assert fault_of(table.seats[2]).hearsay == (3,)


def test_a_second_hello_while_we_hold_the_signature_is_told_and_ends_nothing() -> None:
    with Table(signing_terms((1, 2))) as table:
        seat = held_back(table)
        table.deliver()
        assert seat.state is State.RESULT
        seat.receive(hello_of(table.terms, keys={"x25519": ephemeral("other").x25519}), 0)
        is_convicted(fault_of(seat), 2)
        assert seat.state is State.RESULT
        seat.confirm(0)
        assert seat.state is COMPLETE


def test_a_second_broadcast_in_a_round_is_its_senders_doing() -> None:
    class Twice(Stranger):
        def said(self, note: wire.Note) -> dict[int, bytes]:
            frames = super().said(note)
            if note.to is None and note.round == 1:
                again = changed(note.data)
                signature = self.peer.signed_broadcast(1, again)[-wire.SIGNATURE :]
                self.out.append((1, frames.pop(1)))
                self.out.append((1, self.peer.frame(1, wire.Payload(1, [], signature, again), wire.TO_ALL)))
            return frames

    with Table(signing_terms(), {3: Twice}) as table:
        table.deliver()
        fault = fault_of(table.seats[1])
        assert (fault.reason, fault.culprits) == ("payload", (3,))
        assert fault.detail == "seat 3: a second broadcast in one round"


# ---- Between two: nobody else could have been told otherwise, so nothing is signed but by identity keys ----


def test_between_two_nothing_is_signed_but_by_identity_keys() -> None:
    with Table(signing_terms((1, 2)), {2: Stranger}) as table:
        stranger = table.nodes[2]
        assert isinstance(stranger, Stranger)
        said: list[bytes] = []
        table.collect()
        while table.flying:
            sender, to, frame = table.flying.popleft()
            said += [frame] if sender == 1 else []
            table.nodes[to].receive(frame, 0)
            table.collect()
        assert table.states() == [COMPLETE]
        (hello,), (ready,) = ([frame for frame in said if frame[1] == kind] for kind in (wire.HELLO, wire.READY))
        at = hello.index(identity(1).public) + 33
        assert hello[at + 32 : at + 64] == wire.NO_KEY
        assert ready == wire.ready_body(table.terms.session, 1, [wire.sha256(body) for body in stranger.peer.bodies()])
        sealed = [frame for frame in said if frame[1] == wire.SEALED]
        assert {frame[34] for frame in sealed} == {wire.TO_ALL, wire.DIRECT}
        for frame in sealed:
            opened = wire.unseal(stranger.peer.key(1, 2), frame)
            assert opened is not None
            behind_the_echo = opened[3 + 32 * opened[2] :]
            assert behind_the_echo[2:].startswith(b"type.googleapis.com/"), "the message, and no signature before it"


def test_between_two_a_hello_with_an_ed25519_key_does_not_decode() -> None:
    seat = Seat(signing_terms((1, 2)), 1)
    seat.channel.receive(hello_of(seat.terms, keys={"ed25519": ephemeral("2").ed25519}), 0)
    assert (fault_of(seat).reason, fault_of(seat).culprits) == ("hello-differs", ())
    assert fault_of(seat).detail == "a signed hello that does not decode"
    seat.close()


def test_between_two_a_ready_that_lists_other_hellos_is_dropped_whoever_made_it() -> None:
    """Each has its own hello and the one that the other's identity signed: there is no difference to be found out."""

    class LiesFirst(Stranger):
        def begin(self) -> None:
            hellos = [self.hellos[1], self.hellos[2]]
            for place in (0, 1):
                hashes = [wire.sha256(hello[: -wire.SIGNATURE]) for hello in hellos]
                hashes[place] = bytes(32)
                self.out.append((1, wire.ready_body(self.terms.session, 2, hashes)))
            super().begin()

    with Table(signing_terms((1, 2)), {2: LiesFirst}) as table:
        table.deliver()
        assert table.seats[1].channel.drops()["transcript"] == 2
        assert table.seats[1].channel.fault() is None
        assert table.states() == [COMPLETE]


def lying_echo_of_two(about: int, round_: int) -> type[Stranger]:
    """Seat 2 of two claims that seat `about` broadcast something else in the round before."""

    class LyingEcho(Stranger):
        def said(self, note: wire.Note) -> dict[int, bytes]:
            frames = super().said(note)
            if note.round != round_:
                return frames
            echo = self.peer.echo(round_)
            echo[about - 1] = wire.sha256(b"something else")
            self.peer.sequences[1] -= 1
            return {1: self.peer.frame(1, wire.Payload(round_, echo, b"", note.data), frames[1][34])}

    return LyingEcho


@pytest.mark.parametrize("about", [1, 2])
@pytest.mark.parametrize("round_", [2, 8])
def test_between_two_an_echo_that_lies_is_its_senders_doing(about: int, round_: int) -> None:
    """What it got is what we sealed, and what it sent is what we opened: there is nothing to wait for."""
    with Table(signing_terms((1, 2)), {2: lying_echo_of_two(about, round_)}) as table:
        table.deliver()
        seat = table.seats[1]
        fault = fault_of(seat)
        assert (fault.reason, fault.by, fault.culprits, fault.evidence) == ("payload", 2, (2,), ())
        assert fault.detail == "seat 2: an echo of what was not broadcast"
        assert seat.state is FAILED
        assert seat.channel.progress().round == round_


def test_between_two_an_echo_that_lies_in_the_last_round_waits_for_the_signature() -> None:
    """As any fault of a peer's does there: the peer may have confirmed it."""

    class KeepsIt(lying_echo_of_two(1, 9)):  # type: ignore[misc]
        def confirmation(self) -> None:
            return None

    with Table(signing_terms((1, 2)), {2: lying_echo_of_two(1, 9)}) as table:
        table.deliver()
        assert table.states() == [COMPLETE]
        assert (fault_of(table.seats[1]).reason, fault_of(table.seats[1]).culprits) == ("payload", (2,))
    with Table(signing_terms((1, 2)), {2: KeepsIt}) as table:
        table.deliver()
        assert table.states() == [State.RUNNING]
        table.wait(6000)
        assert table.states() == [FAILED]
        assert (fault_of(table.seats[1]).reason, fault_of(table.seats[1]).culprits) == ("payload", (2,))


def test_between_two_no_broadcast_is_shown() -> None:
    """A statement about one, in whatever key, means nothing there."""
    with Table(signing_terms((1, 2))) as table:
        table.deliver()
        seat = table.seats[1]
        body = wire.broadcast_body(table.terms.session, 2, seat.channel.transcript, 1, bytes(32))
        seat.receive(ephemeral("2").state(body), 0)
        assert seat.channel.drops() == {"state": 1}
        assert seat.channel.fault() is None


def test_between_two_a_valid_signature_is_confirmed_in_whatever_name() -> None:
    """Only the network can have made it, to keep us from answering the peer, which it can do without."""
    with Table(signing_terms((1, 2))) as table:
        seat = held_back(table)
        table.seats[2].holds_back = True
        table.deliver()
        signature = seat.channel.signature()
        assert signature is not None
        body = wire.confirmation_body(table.terms, 2, seat.channel.transcript, bytes(32), signature.rs)
        invalid = wire.confirmation_body(table.terms, 2, seat.channel.transcript, bytes(32), b"\1" * 64)
        seat.receive(identity(9).state(invalid), 0)
        assert seat.channel.drops() == {"signature": 1}
        seat.receive(identity(9).state(body), 0)
        assert sorted(seat.channel.confirmations()) == [2]
        assert (seat.state, seat.channel.fault()) == (State.RESULT, None)


def test_between_two_an_older_signature_of_the_same_hash_is_no_result() -> None:
    """The transcript is computed from the hellos: the network could confirm it in the name of a peer that refuses."""
    terms = signing_terms((1, 2), session=7)
    with Table(signing_terms((1, 2), session=6)) as table:
        table.deliver()
        older = table.seats[1].channel.signature()
        assert older is not None
    with Table(terms) as table:
        ours, peer = table.seats[1], table.seats[2]
        hellos = [next(frame for _, frame in seat.outgoing()) for seat in (ours, peer)]
        ours.receive(hellos[1], 0)
        assert ours.state is State.RUNNING
        peer.abort("refused")
        (notice,) = (frame for _, frame in peer.outgoing() if frame[1] == wire.ABORT)
        transcript = wire.transcript([hello[:-64] for hello in hellos])
        body = wire.confirmation_body(terms, 2, transcript, bytes(32), older.rs)
        for forged in (body + bytes(64), identity(9).state(body)):
            ours.receive(forged, 1)
            assert (ours.state, ours.channel.signature()) == (State.RUNNING, None)
        assert ours.channel.drops() == {"signature": 2}
        ours.receive(notice, 2)
        fault = ours.channel.fault()
        assert fault is not None
        assert (ours.state, fault.reason) == (State.FAILED, "aborted")


def test_between_three_nobody_confirms_a_signature_in_anothers_name() -> None:
    """Else a party could keep its last message from another, and have us believe that it needs no answer."""
    with Table(signing_terms()) as table:
        for seat in table.seats.values():
            seat.holds_back = True
        table.deliver()
        seat = table.seats[1]
        signature = seat.channel.signature()
        assert signature is not None
        body = wire.confirmation_body(table.terms, 2, seat.channel.transcript, bytes(32), signature.rs)
        seat.receive(identity(3).state(body), 0)
        assert seat.channel.drops() == {"signature": 1}
        assert seat.channel.confirmations() == {}


def test_between_two_a_signature_that_does_not_come_about_waits_for_the_peers() -> None:
    """Nobody is named; in the last round the peer may hold it, and there is nothing to show in the meantime."""

    class WrongShare(Stranger):
        def said(self, note: wire.Note) -> dict[int, bytes]:
            return super().said(note._replace(data=changed(note.data)) if note.round == 9 else note)

        def confirmation(self) -> None:
            return None

    with Table(signing_terms((1, 2)), {2: WrongShare}) as table:
        table.deliver()
        assert table.states() == [State.RUNNING]
        table.wait(4000)
        assert wire.BROADCAST not in {frame[1] for _, _, frame in table.flying}
        table.wait(2000)
        assert table.states() == [FAILED]
        assert (fault_of(table.seats[1]).reason, fault_of(table.seats[1]).culprits) == ("party", ())


# ---- Confirmations ----


class ConfirmsOther(Stranger):
    """Seat 2 of a keygen confirms another result."""

    def confirmation(self) -> bytes | None:
        return self.peer.confirmation(self.rounds, bytes(32))


class SaysNothing(Stranger):
    """Seat 2 of a keygen does not confirm."""

    def confirmation(self) -> bytes | None:
        return None


def held_back(table: Table) -> Seat:
    """Our seat 1, which does not confirm by itself."""
    seat = table.seats[1]
    seat.holds_back = True
    return seat


def test_a_confirmation_that_differs_before_ours_fails_and_keeps_us_from_confirming() -> None:
    with Table(keygen_terms(), {2: ConfirmsOther}) as table:
        seat = held_back(table)
        table.deliver()
        assert seat.state is State.RESULT
        with pytest.raises(channel.ConfirmationContradicted):
            seat.channel.confirmation_digest(seat.result_digest(), 0)
        fault = fault_of(seat)
        assert (fault.reason, fault.by, fault.culprits) == ("confirmation-differs", 2, ())
        stranger = table.nodes[2]
        assert isinstance(stranger, Stranger)
        assert fault.evidence == (stranger.confirmations[2],)
        assert seat.state is FAILED


def test_a_confirmation_that_differs_after_ours_is_told_and_ends_nothing() -> None:
    with Table(keygen_terms(), {2: SaysNothing}) as table:
        seat = table.seats[1]
        table.deliver()
        assert seat.state is State.CONFIRMING
        stranger = table.nodes[2]
        assert isinstance(stranger, SaysNothing)
        lie = stranger.peer.confirmation(stranger.rounds, bytes(32))
        seat.receive(lie, 0)
        assert seat.state is State.CONFIRMING
        assert (fault_of(seat).reason, fault_of(seat).evidence) == ("confirmation-differs", (lie,))
        assert sorted(seat.channel.confirmations()) == [1]
        true = Stranger.confirmation(stranger)
        assert true is not None
        seat.receive(true, 0)
        assert seat.state is COMPLETE, "others may hold no other; the agreeing one counts"
        is_convicted(fault_of(seat), 2)
        assert seat.channel.confirmations()[2] == true


@pytest.mark.parametrize("field", ["session", "kind", "profile", "generation", "committee", "transcript", "echo"])
def test_a_confirmation_agrees_in_every_field_or_does_not_count(field: str) -> None:
    at = {"session": 2, "kind": 22, "profile": 23, "generation": 27, "committee": 28, "transcript": 60, "echo": 92}
    with Table(keygen_terms(), {2: SaysNothing}) as table:
        seat = table.seats[1]
        table.deliver()
        stranger = table.nodes[2]
        assert isinstance(stranger, SaysNothing)
        true = Stranger.confirmation(stranger)
        assert true is not None
        body = bytearray(true[: -wire.SIGNATURE])
        body[at[field]] ^= 3 if field in {"kind", "profile"} else 1
        seat.receive(identity(2).state(bytes(body)), 0)
        assert seat.state is State.CONFIRMING
        assert sorted(seat.channel.confirmations()) == [1]
        assert seat.stored is not None
        assert (
            channel.confirmed_by(seat.stored, [identity(2).state(bytes(body))], identities(table.terms)) == frozenset()
        )
        seat.receive(true, 0)
        assert seat.state is COMPLETE


def test_a_signature_that_is_none_completes_nothing() -> None:
    """Before the end a seat claims to have the signature."""
    with Table(signing_terms(), {3: Stranger}) as table:
        table.collect()
        seat, stranger = table.seats[1], table.nodes[3]
        assert isinstance(stranger, Stranger)
        while seat.state is not State.RUNNING or stranger.party is None:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        for rs in (bytes(64), b"\1" * 64, b"\xff" * 64):
            seat.receive(stranger.peer.confirmation(9, rs), 0)
        assert seat.state is State.RUNNING
        assert seat.channel.drops() == {"transcript": 3}
        table.deliver()
        assert table.states() == [COMPLETE, COMPLETE]


def test_a_signature_with_high_s_or_of_another_transcript_completes_nothing() -> None:
    with Table(signing_terms((1, 2))) as table:
        seat = held_back(table)
        table.seats[2].holds_back = True
        table.deliver()
        assert seat.state is State.RESULT
        signature = seat.channel.signature()
        assert signature is not None
        order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
        high = signature.rs[:32] + (order - int.from_bytes(signature.rs[32:])).to_bytes(32)
        transcript = seat.channel.transcript
        for of, rs in ((transcript, high), (bytes(32), signature.rs)):
            seat.receive(identity(2).state(wire.confirmation_body(table.terms, 2, of, bytes(32), rs)), 0)
        assert seat.channel.drops() == {"transcript": 2}
        assert seat.state is State.RESULT


# ---- Aborts ----


def notice(terms: Terms, seat: int, reason: str = "test", culprits: tuple[int, ...] = ()) -> bytes:
    """A signed abort notice."""
    party_id = dict(terms.committee)[seat]
    return identity(seat).state(wire.abort_body(terms.session, seat, party_id, reason, culprits))


def test_an_abort_is_heard_before_any_hello_and_its_culprits_are_hearsay() -> None:
    seat = Seat(signing_terms(), 1)
    seat.channel.receive(notice(seat.terms, 2, "hsm-unavailable", (3,)), 0)
    fault = fault_of(seat)
    assert (fault.reason, fault.by, fault.culprits, fault.hearsay) == ("aborted", 2, (), (3,))
    assert fault.detail == "user2-server ended it: hsm-unavailable"
    assert seat.state is FAILED
    seat.close()


def test_an_abort_that_the_link_lost_is_learned_by_asking() -> None:
    with Table(signing_terms()) as table:
        table.collect()
        table.seats[2].abort("test")
        table.collect()
        table.flying = type(table.flying)(item for item in table.flying if item[2][1] != wire.ABORT)
        table.deliver()
        table.wait(3000)
        assert table.states() == [FAILED] * 3
        assert {fault_of(table.seats[number]).reason for number in (1, 3)} == {"aborted"}


def test_an_abort_is_passed_on_by_whoever_heard_it() -> None:
    """Seat 2 gives up and is gone; seat 1 heard it, seat 3 did not."""
    with Table(signing_terms()) as table:
        table.collect()
        table.flying = type(table.flying)(item for item in table.flying if item[2][1] == wire.HELLO)
        while table.flying:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
        table.seats[2].abort("test")
        heard = next(frame for _, frame in table.seats[2].outgoing() if frame[1] == wire.ABORT)
        table.nodes.pop(2).close()
        table.seats[1].receive(heard, 0)
        assert table.seats[1].state is FAILED
        for _ in range(8):
            table.now += 250
            for seat in table.seats.values():
                seat.tick(table.now)
                other = table.nodes[4 - seat.seat]
                for receiver, frame in seat.outgoing():
                    if receiver in {None, 4 - seat.seat}:
                        other.receive(frame, table.now)
        assert table.seats[3].state is FAILED
        assert fault_of(table.seats[3]).by in {1, 2}


def test_an_abort_after_a_confirmation_is_dropped() -> None:
    with Table(keygen_terms(), {2: Stranger}) as table:
        seat = held_back(table)
        table.deliver()
        assert seat.state is State.RESULT
        seat.receive(notice(table.terms, 2), 0)
        assert seat.channel.drops() == {"abort": 1}
        assert seat.state is State.RESULT
        seat.confirm(0)
        assert seat.state is COMPLETE


def test_an_abort_after_our_confirmation_is_told_and_ends_nothing() -> None:
    with Table(keygen_terms(), {2: SaysNothing}) as table:
        seat = table.seats[1]
        table.deliver()
        seat.receive(notice(table.terms, 2), 0)
        assert seat.state is State.CONFIRMING
        assert fault_of(seat).reason == "aborted"
        stranger = table.nodes[2]
        assert isinstance(stranger, Stranger)
        true = Stranger.confirmation(stranger)
        assert true is not None
        seat.receive(true, 0)
        assert seat.state is COMPLETE


def test_nobody_aborts_after_confirming() -> None:
    with Table(keygen_terms(), {2: SaysNothing}) as table:
        table.deliver()
        with pytest.raises(Exception, match="argument refused: channel"):
            table.seats[1].channel.abort("test")
        assert table.seats[1].state is State.CONFIRMING


def test_an_abort_while_we_hold_the_signature_ends_nothing() -> None:
    with Table(signing_terms((1, 2))) as table:
        seat = held_back(table)
        table.seats[2].holds_back = True
        table.deliver()
        assert seat.state is State.RESULT
        seat.receive(notice(table.terms, 2), 0)
        assert seat.state is State.RESULT
        seat.confirm(0)
        assert seat.state is COMPLETE


def test_an_abort_in_anothers_name() -> None:
    """Another party id than the seat's, under the seat's own key."""
    seat = Seat(signing_terms(), 1)
    body = wire.abort_body(seat.terms.session, 2, "user3-server", "test")
    seat.channel.receive(identity(2).state(body), 0)
    assert seat.channel.drops() == {"malformed": 1}
    assert seat.state is State.HELLO
    seat.close()


# ---- Floods ----


def test_memory_for_what_cannot_be_checked_yet_is_bounded() -> None:
    """Sealed-looking frames before there are keys: eight are kept, the rest counted."""
    seat = Seat(signing_terms(), 1)
    for sequence in range(1, 1001):
        clear = wire.sealed_header(seat.terms.session, 2, 1, sequence, wire.TO_ALL)
        seat.channel.receive(clear + bytes(100), 0)
    assert seat.channel.drops() == {"early": 992}
    seat.close()


def test_what_came_before_the_hellos_is_not_lost() -> None:
    """Seat 2 has all hellos before seat 1 has; its first frames wait there, unchecked, and need no resend."""
    with Table(signing_terms()) as table:
        table.collect()
        late = [item for item in table.flying if item[:2] == (3, 1)]
        table.flying = type(table.flying)(item for item in table.flying if item[:2] != (3, 1))
        table.deliver()
        assert table.seats[1].state is State.HELLO
        table.flying.extend(late)
        table.deliver()
        assert table.states() == [COMPLETE] * 3
        assert table.now == 0


def test_one_peer_cannot_fill_the_memory() -> None:
    """Genuine frames behind a gap, as long as they may be: half a megabyte is held, and the gap can still close."""

    class Floods(Stranger):
        def begin(self) -> None:
            super().begin()
            self.held = [item for item in self.out if item[0] == 1 and item[1][1] == wire.SEALED]
            for item in self.held:
                self.out.remove(item)
            big = wire.Payload(1, [], b"", bytes(256 * 1024))
            for sequence in range(40, 60):
                self.out.append((1, self.peer.frame(1, big, wire.DIRECT, sequence)))
            self.out.extend(self.held)

    with Table(signing_terms(), {3: Floods}) as table:
        table.collect()
        while table.flying and table.seats[1].channel.progress().round < 2:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        assert table.seats[1].channel.drops() == {"full": 19}
        assert table.seats[1].channel.progress().round == 2
