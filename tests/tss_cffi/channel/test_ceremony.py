"""Ceremonies over a good link: our seats among themselves, and with a second implementation of the channel."""

from __future__ import annotations

import pytest

from tests.interop.independent import verify
from tests.tss_cffi.channel.seats import (
    State,
    Stranger,
    Table,
    channel,
    identities,
    identity,
    keygen_terms,
    signing_terms,
)
from tests.tss_cffi.seeded import core


@pytest.mark.parametrize("signers", [(1, 3), (1, 2, 3)], ids=["t2n2", "t2n3"])
def test_a_signing_completes_with_one_signature(signers: tuple[int, ...]) -> None:
    with Table(signing_terms(signers)) as table:
        table.deliver()
        assert table.states() == [State.COMPLETE] * len(signers)
        assert table.now == 0, "over a good link no clock is needed"
        signatures = {seat.channel.signature() for seat in table.seats.values()}
        assert len(signatures) == 1
        signature = signatures.pop()
        assert signature is not None
        verify(table.terms.public_key, table.terms.digest, signature.rs, signature.recovery_id)
        assert all(not seat.channel.drops() for seat in table.seats.values())
        assert all(seat.channel.fault() is None for seat in table.seats.values())


def test_a_keygen_is_confirmed_by_all_and_its_set_stands_alone() -> None:
    with Table(keygen_terms(n=2)) as table:
        table.deliver()
        assert table.states() == [State.COMPLETE] * 2
        for seat in table.seats.values():
            assert seat.stored is not None
            statements = seat.channel.confirmations()
            assert sorted(statements) == [1, 2]
            keys = identities(table.terms)
            assert channel.confirmed_by(seat.stored, statements.values(), keys) == {1, 2}
            again = seat.stored + identity(seat.seat).sign(channel.confirmation_digest(seat.stored))
            assert channel.confirmed_by(seat.stored, [again], keys) == {seat.seat}, "signed again after a restart"
            assert channel.confirmed_by(seat.stored, [statements[1]], {1: keys[2], 2: keys[1]}) == frozenset()


@pytest.mark.parametrize("strange", [(3,), (1,), (1, 2)], ids=str)
def test_a_signing_with_the_second_implementation_completes(strange: tuple[int, ...]) -> None:
    with Table(signing_terms(), dict.fromkeys(strange, Stranger)) as table:
        table.deliver()
        assert table.states() == [State.COMPLETE] * (3 - len(strange))
        for number in strange:
            stranger = table.nodes[number]
            assert isinstance(stranger, Stranger)
            assert sorted(stranger.confirmations) == [1, 2, 3]
        assert all(not seat.channel.drops() for seat in table.seats.values())


def test_a_keygen_with_the_second_implementation_is_confirmed_by_all() -> None:
    with Table(keygen_terms(n=2), {2: Stranger}) as table:
        table.deliver()
        assert table.states() == [State.COMPLETE]
        assert sorted(table.seats[1].channel.confirmations()) == [1, 2]


def test_progress_tells_whom_it_waits_for() -> None:
    with Table(signing_terms()) as table:
        seat = table.seats[1]
        assert seat.channel.progress().waits_for == (2, 3)
        table.collect()
        hellos = {sender: frame for sender, to, frame in table.flying if to == 1}
        seat.receive(hellos[2], 0)
        assert seat.channel.progress().waits_for == (3,)
        assert seat.channel.progress().steps == 1
        seat.receive(hellos[3], 0)
        assert seat.state is State.RUNNING
        assert seat.channel.progress()._replace(steps=0) == (1, 9, 0, (2, 3))


def test_the_transcript_is_there_with_the_last_hello() -> None:
    with Table(signing_terms((1, 2))) as table:
        with pytest.raises(core.Misuse, match="transcript"):
            _ = table.seats[1].channel.transcript
        table.deliver()
        assert table.seats[1].channel.transcript == table.seats[2].channel.transcript
