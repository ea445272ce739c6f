"""Ceremonies over a link that hypothesis scripts: loss, delay, repetition, any order, reconnects, crashes.

Over a link that in the end delivers, all have the same result, or all have learned that there is none; a share is never
active at one and lost at another. Over a dead link each ends at its own deadline.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import (
    TICK,
    Node,
    Seat,
    State,
    Table,
    channel,
    identities,
    identity,
    keygen_terms,
    signing_terms,
)
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from tests.tss_cffi.channel.independent import Terms

PATIENCE = 120_000
"""Milliseconds that the link takes to be good again, at most."""


class Restarted:
    """What is left of a node after a crash: its identity key and, perhaps, a pending share's row."""

    def __init__(self, terms: Terms, seat: int, stored: bytes | None) -> None:
        """stored: body of the confirmation in the row."""
        self.terms = terms
        self.seat = seat
        self.stored = stored
        self.statements: set[bytes] = set()
        self.out: list[tuple[int | None, bytes]] = []
        self.told: set[int] = set()
        if stored is not None:
            self.own = stored + identity(seat).sign(channel.confirmation_digest(stored))
            self.statements.add(self.own)

    @property
    def active(self) -> bool:
        """Is the share confirmed by all?"""
        return self.stored is not None and channel.confirmed_by(
            self.stored, self.statements, identities(self.terms)
        ) == set(identities(self.terms))

    def receive(self, frame: bytes, now: int) -> None:  # noqa: ARG002 - the face of Seat
        """Confirm again, or tell that the session is gone."""
        claims = channel.frame_claims(frame)
        assert claims is not None
        if self.stored is None:
            if frame[1] <= wire.ACK:
                notice = channel.AbortNotice(
                    claims.session, self.seat, dict(self.terms.committee)[self.seat], "restart", ()
                )
                body, digest = channel.abort_notice(notice)
                self.out.append((claims.sender, body + identity(self.seat).sign(digest)))
        elif frame[1] == wire.CONFIRM:
            self.statements.add(frame)
        elif frame[1] == wire.ACK:
            self.out += [(claims.sender, statement) for statement in self.statements]

    def tick(self, now: int) -> None:
        """Whoever does not have the whole set shows what it has."""
        if self.stored is not None and not self.active and now % 1000 < TICK:
            self.out.append((None, self.own))
            self.out += [
                (seat, wire.ack(self.terms.session, self.seat, seat, 0))
                for seat, _ in self.terms.committee
                if seat != self.seat
            ]

    def outgoing(self) -> list[tuple[int | None, bytes]]:
        """What is to be carried."""
        out, self.out = self.out, []
        return out

    def close(self) -> None:
        """Nothing is held."""


class Link(RuleBasedStateMachine):
    """A table whose link is in hypothesis' hands."""

    table: Table
    crashed = False
    cut_off = False

    def terms(self) -> Terms:
        raise NotImplementedError

    @initialize()
    def sit(self) -> None:
        self.table = Table(self.terms())
        self.table.collect()

    @rule(place=st.integers(0, 10_000), times=st.integers(1, 3))
    def deliver(self, place: int, times: int) -> None:
        """Any frame on the link, not only the oldest, and perhaps more than once."""
        if self.table.flying:
            place %= len(self.table.flying)
            _, to, frame = self.table.flying[place]
            del self.table.flying[place]
            for _ in range(times):
                self.table.nodes[to].receive(frame, self.table.now)
            self.table.collect()

    @rule(count=st.integers(5, 40))
    def deliver_many(self, count: int) -> None:
        """The link is good for a while."""
        for _ in range(min(count, len(self.table.flying))):
            self.deliver(0, 1)

    @rule(place=st.integers(0, 10_000))
    def lose(self, place: int) -> None:
        if self.table.flying:
            del self.table.flying[place % len(self.table.flying)]

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        """Time passes, and nothing is delivered."""
        for _ in range(seconds * 4):
            self.table.now += TICK
            for node in self.table.nodes.values():
                node.tick(self.table.now)
            self.table.collect()

    @rule(number=st.integers(1, 3))
    def reconnect(self, number: int) -> None:
        """Whatever was under way to and from a seat is gone, and it asks."""
        node = self.table.nodes.get(number)
        self.table.flying = type(self.table.flying)(item for item in self.table.flying if number not in item[:2])
        if isinstance(node, Seat):
            node.channel.connected(self.table.now)
            self.table.collect()

    @rule(number=st.integers(1, 3), lost=st.booleans())
    def crash(self, number: int, lost: bool) -> None:  # noqa: FBT001 - hypothesis passes by keyword
        """The custodian of a seat is killed, perhaps not the first; what it had sent may be lost, too."""
        node = self.table.nodes.get(number)
        if isinstance(node, Seat):
            self.crashed = True
            stored = node.stored or None
            node.close()
            self.table.nodes[number] = Restarted(self.table.terms, number, stored)  # type: ignore[assignment]
            if lost:
                self.table.flying = type(self.table.flying)(item for item in self.table.flying if item[0] != number)

    @invariant()
    def nobody_is_blamed(self) -> None:
        if hasattr(self, "table"):
            for seat in self.table.seats.values():
                fault = seat.channel.fault()
                assert fault is None or fault.reason in {"aborted", "local"}
                assert not seat.channel.drops().get("tag")

    def settle(self) -> None:
        """The link is good again, until everybody is done or has run out of time."""
        self.table.deliver()
        while not self.at_rest() and self.table.now < PATIENCE * 4:
            self.table.wait(TICK)
            if self.table.now >= PATIENCE:
                for seat in self.table.seats.values():
                    if seat.state < State.CONFIRMING:
                        seat.abort("deadline")
                self.table.deliver()

    def at_rest(self) -> bool:
        return all(_at_rest(node) for node in self.table.nodes.values())

    def teardown(self) -> None:
        if hasattr(self, "table"):
            try:
                self.settle()
                self.nobody_is_blamed()
                self.all_is_well()
            finally:
                self.table.__exit__()

    def all_is_well(self) -> None:
        raise NotImplementedError


def _at_rest(node: Node | Restarted) -> bool:
    if isinstance(node, Restarted):
        return node.stored is None or node.active
    return isinstance(node, Seat) and node.state in {State.COMPLETE, State.FAILED}


class SigningLink(Link):
    """A signing by two."""

    def terms(self) -> Terms:
        return signing_terms((1, 3))

    def all_is_well(self) -> None:
        states = [seat.state for seat in self.table.seats.values()]
        assert set(states) <= {State.COMPLETE, State.FAILED}
        if not self.crashed and self.table.now < PATIENCE:
            assert set(states) == {State.COMPLETE}
        signatures = {seat.channel.signature() for seat in self.table.seats.values() if seat.state is State.COMPLETE}
        assert len(signatures) <= 1
        if State.FAILED in states and State.COMPLETE in states:
            # Who crashed told one seat that it is gone, after another had the signature.
            assert self.crashed
            assert {_reason(seat) for seat in self.table.seats.values()} == {None, "aborted"}


def _reason(seat: Seat) -> str | None:
    fault = seat.channel.fault()
    return None if fault is None or seat.state is State.COMPLETE else fault.reason


class KeygenLink(Link):
    """A keygen of two."""

    def terms(self) -> Terms:
        return keygen_terms()

    def all_is_well(self) -> None:
        active = [_is_active(node) for node in self.table.nodes.values()]
        assert all(active) or not any(active)
        if not any(active) and not self.crashed:
            assert self.table.now >= PATIENCE
        for node in self.table.nodes.values():
            assert _at_rest(node) or _is_pending(node)


def _is_active(node: Node | Restarted) -> bool:
    return node.active if isinstance(node, Restarted) else isinstance(node, Seat) and node.state is State.COMPLETE


def _is_pending(node: Node | Restarted) -> bool:
    return isinstance(node, Restarted | Seat) and bool(node.stored)


class ThreeLink(SigningLink):
    """A signing by three."""

    def terms(self) -> Terms:
        return signing_terms((1, 2, 3))


class ThreeKeygenLink(KeygenLink):
    """A keygen of three: two can be done, or gone, while the third knows nothing of it."""

    def terms(self) -> Terms:
        return keygen_terms(3)


EXAMPLES = int(os.environ.get("CHANNEL_EXAMPLES", "20"))
BUDGET = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="CHANNEL_EXAMPLES" not in os.environ,
)
TestSigningLink = SigningLink.TestCase
TestSigningLink.settings = BUDGET
TestKeygenLink = KeygenLink.TestCase
TestKeygenLink.settings = BUDGET
TestThreeLink = ThreeLink.TestCase
TestThreeLink.settings = BUDGET
TestThreeKeygenLink = ThreeKeygenLink.TestCase
TestThreeKeygenLink.settings = BUDGET


def test_a_share_becomes_active_everywhere_through_whoever_holds_the_set() -> None:
    """Seat 3 confirms to seat 1 alone and is killed: seat 2 has the set from seat 1, and seat 3 when it is back."""
    with Table(keygen_terms(3)) as table:

        def deliver() -> None:
            """Seat 3 hears no confirmation, and seat 2 none of seat 3's own mouth."""
            table.collect()
            while table.flying:
                sender, to, frame = table.flying.popleft()
                if frame[1] != wire.CONFIRM or (to != 3 and (sender, to) != (3, 2)):
                    table.nodes[to].receive(frame, table.now)
                    table.collect()

        deliver()
        killed = table.seats[3]
        assert table.states() == [State.COMPLETE, State.CONFIRMING, State.CONFIRMING]
        assert table.seats[2].channel.progress().waits_for == (3,)
        killed.close()
        away = Restarted(table.terms, 3, killed.stored)
        table.nodes[3] = away  # type: ignore[assignment]
        for _ in range(2 * 1000 // TICK):
            table.now += TICK
            for number in (1, 2):
                table.nodes[number].tick(table.now)
            deliver()
        assert table.states() == [State.COMPLETE, State.COMPLETE]
        assert not away.active
        table.wait(2000)
        assert away.active


def test_over_a_dead_link_a_share_stays_pending_until_it_is_given_up() -> None:
    """All hold their share, no confirmation arrives: nobody is active, nobody can take back its word, nobody hangs."""
    with Table(keygen_terms(3)) as table:
        table.collect()
        while any(seat.state is not State.CONFIRMING for seat in table.seats.values()):
            _, to, frame = table.flying.popleft()
            if frame[1] != wire.CONFIRM:
                table.nodes[to].receive(frame, 0)
                table.collect()
        while table.now < PATIENCE:
            table.now += TICK
            for node in table.nodes.values():
                node.tick(table.now)
                node.outgoing()
        assert table.states() == [State.CONFIRMING] * 3
        for number, seat in table.seats.items():
            assert set(seat.channel.progress().waits_for) == {1, 2, 3} - {number}
            with pytest.raises(core.Misuse):
                seat.channel.abort("deadline")
            assert seat.channel.fault() is None


def test_over_a_dead_link_each_ends_at_its_own_deadline() -> None:
    """Nothing arrives any more, in the middle: nobody hangs, nobody is blamed, no memory grows."""
    with Table(signing_terms()) as table:
        table.collect()
        while table.seats[2].channel.progress().round < 5:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        for deadline, number in ((10_000, 1), (20_000, 2), (30_000, 3)):
            while table.now < deadline:
                table.now += TICK
                for node in table.nodes.values():
                    node.tick(table.now)
                    node.outgoing()
            assert table.seats[number].state is State.RUNNING
            table.seats[number].abort("deadline")
            assert table.seats[number].state is State.FAILED
            fault = table.seats[number].channel.fault()
            assert fault is not None
            assert (fault.reason, fault.detail, fault.culprits) == ("local", "deadline", ())
