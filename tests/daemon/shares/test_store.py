from __future__ import annotations

import re
import signal
import sqlite3
import sys
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from daemon.custody import wire
from daemon.errors import (
    AuditUnwritable,
    Broken,
    NoActiveShare,
    Overdue,
    PeerFault,
    Refused,
    SessionReplayed,
    ShareNotActive,
    UnknownSession,
    UnknownShare,
)
from daemon.network.peers import load_pins, store_pins
from daemon.session import TELLING, SessionStatus, SessionType, Step
from daemon.share import ShareStatus
from daemon.shares import schema
from daemon.shares.store import Store, connect, open_store
from daemon.values import Channel, PartyId, SessionId, ShareId, Signature
from tests.daemon.shares.samples import (
    ALICE,
    HASH,
    KEY,
    OTHER_KEY,
    active_share,
    offer,
    pending_share,
    prepared_row,
    sealed,
    session_id,
    share_row,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SIGNATURE = Signature((1).to_bytes(32, "big") + (2).to_bytes(32, "big"), 1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "tssd.db") as opened:
        yield opened


async def test_a_store_is_private_and_durable(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "tssd.db").stat().st_mode & 0o777 == 0o600

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store.write(pragmas) == ["wal", 2, 1, schema.APPLICATION_ID, len(schema.STEPS)]


async def test_every_table_is_strict(store: Store) -> None:
    tables = await store.read(
        lambda connection: connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    )
    assert len(tables) > 10
    assert all("STRICT" in sql for name, sql in tables if not name.startswith("sqlite_"))


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    connect(tmp_path / "tssd.db").execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    with pytest.raises(Refused, match="format"):
        async with open_store(tmp_path / "tssd.db"):
            pass


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "tssd.db").execute("CREATE TABLE somebodys (x)")
    with pytest.raises(Refused, match="another program"):
        async with open_store(tmp_path / "tssd.db"):
            pass


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tssd.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Refused, match="cannot be opened"):
        async with open_store(tmp_path / "tssd.db"):
            pass


# ---- Sessions ----


async def test_the_same_request_finds_its_session(store: Store) -> None:
    wanted = offer()
    session, fresh = await store.offer(wanted)
    assert fresh
    assert session.status is SessionStatus.IN_PROGRESS
    again, fresh = await store.offer(wanted)
    assert not fresh
    assert again == session
    with pytest.raises(SessionReplayed):
        await store.offer(replace(wanted, request_digest="another"))


async def test_the_same_request_twice_at_once_makes_one_session(store: Store) -> None:
    wanted = offer()
    found: list[bool] = []

    async def ask() -> None:
        found.append((await store.offer(wanted))[1])

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask)
    assert sorted(found) == [False] * 7 + [True]


async def test_two_parties_of_ours_in_one_session(store: Store) -> None:
    session = session_id()
    await store.offer(offer(session))
    await store.offer(offer(session, party_id=PartyId("bob-wallet")))
    with pytest.raises(UnknownSession, match="several parties"):
        await store.session(session)
    assert (await store.session(session, PartyId("bob-wallet"))).party_id == PartyId("bob-wallet")
    with pytest.raises(UnknownSession, match="no session"):
        await store.session(session_id())


async def test_the_status_follows_the_journal(store: Store) -> None:
    session, _ = await store.offer(offer())
    await store.note(session, Step.AGREED, columns={"seat": 3}, audited={"threshold": "2-of-3"})
    await store.note(session, Step.ROUND, round_number=2, detail={"waitsFor": ["b-x"]}, columns={"rounds": 4})
    now = await store.session(session.session_id)
    assert (now.step, now.round, now.rounds, now.status) == (Step.ROUND, 2, 4, SessionStatus.IN_PROGRESS)
    await store.end(session, PeerFault("lied", reason="bad-proof", culprits=(PartyId("b-x"),)), report=True)
    ended = await store.session(session.session_id)
    assert (ended.status, ended.reason, ended.culprits) == (SessionStatus.FAILED, "bad-proof", ("b-x",))
    assert ended.completed_at is not None
    assert ended.round == 2
    assert [entry.step for entry in await store.journal(session.session_id, ALICE)] == [
        Step.OFFERED,
        Step.AGREED,
        Step.ROUND,
        Step.FAILED,
    ]
    (report,) = await store.waiting("report")
    assert report.payload == {"error": "bad-proof: lied"}


async def test_a_clock_ends_in_timeout(store: Store) -> None:
    session, _ = await store.offer(offer())
    await store.end(session, Overdue("late", ("b-x",)), report=False)
    assert (await store.session(session.session_id)).status is SessionStatus.TIMEOUT
    assert (await store.journal(session.session_id, ALICE))[-1].detail["waitsFor"] == ["b-x"]
    assert await store.waiting("report") == []


@pytest.mark.parametrize("step", list(Step))
async def test_nothing_follows_the_end(store: Store, step: Step) -> None:
    session, _ = await store.offer(offer())
    await store.end(session, Overdue("late"), report=False)
    before = await store.journal(session.session_id, ALICE)
    with pytest.raises(Broken, match="has ended"):
        await store.note(session, step)
    assert await store.journal(session.session_id, ALICE) == before


async def test_a_result_is_not_ended_by_what_comes_after_it(store: Store) -> None:
    row = await pending_share(store)
    share = await store.share(ShareId(row.share_id))
    session = await store.session(share.session_id)
    assert not await store.end(session, Overdue("late"), report=True)
    await store.add_confirmations(share, {"b-x": b"one"})
    assert not await store.end(session, Overdue("late"), report=True)
    assert (await store.session(share.session_id)).status is SessionStatus.IN_PROGRESS
    await store.activate(share, confirmed=True)
    assert not await store.end(session, Overdue("late"), report=True)
    assert (await store.session(share.session_id)).status is SessionStatus.COMPLETED


async def test_the_journal_is_followed_live_to_its_end(store: Store) -> None:
    session, _ = await store.offer(offer())
    seen: list[Step] = []

    async def follow(*, task_status: trio.TaskStatus[None]) -> None:
        async with aclosing(store.follow(session.session_id)) as news:
            async for entries in news:
                seen.extend(entry.step for entry in entries)
                if seen == [Step.OFFERED]:
                    task_status.started()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(follow)
            await store.note(session, Step.JOINING)
            await store.end(session, Overdue("late"), report=False)
    assert seen == [Step.OFFERED, Step.JOINING, Step.TIMEOUT]


async def test_following_goes_on_after_a_row(store: Store) -> None:
    session, _ = await store.offer(offer())
    await store.end(session, Overdue("late"), report=False)
    first, last = await store.journal(session.session_id, ALICE)
    async with aclosing(store.follow(session.session_id, after=first.number)) as news:
        assert [entries async for entries in news] == [[last]]
    async with aclosing(store.follow(session.session_id, after=last.number)) as news:
        assert [entries async for entries in news] == []


async def test_steps_are_told_together_and_the_end_at_once(store: Store) -> None:
    session, _ = await store.offer(offer())
    seen: list[list[Step]] = []

    async def follow(*, task_status: trio.TaskStatus[None]) -> None:
        async with aclosing(store.follow(session.session_id, pace=3600)) as news:
            async for entries in news:
                seen.append([entry.step for entry in entries])
                if len(seen) == 1:
                    task_status.started()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(follow)
            await store.note(session, Step.JOINING)
            await store.note(session, Step.AGREED)
            await store.end(session, Overdue("late"), report=False)
    assert seen == [[Step.OFFERED], [Step.JOINING, Step.AGREED, Step.TIMEOUT]]
    assert not store._news


@pytest.mark.parametrize("table", ["journal", "audit"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = ''", "DELETE FROM {}"])
async def test_history_is_not_rewritten(store: Store, table: str, change: str) -> None:
    await store.offer(offer())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await store.write(lambda connection: connection.execute(change.format(table)))


async def test_sessions_are_listed_newest_first(store: Store) -> None:
    made = [(await store.offer(offer()))[0] for _ in range(3)]
    signing, _ = await store.offer(offer(type=SessionType.SIGN, message_hash=HASH, public_key=KEY))
    await store.end(made[0], Overdue("late"), report=False)
    assert [s.session_id for s in await store.sessions()] == [s.session_id for s in (signing, *reversed(made))]
    assert [s.session_id for s in await store.sessions(status=SessionStatus.TIMEOUT)] == [made[0].session_id]
    assert [s.session_id for s in await store.sessions(type_=SessionType.SIGN)] == [signing.session_id]
    assert [s.session_id for s in await store.sessions(before=made[1].started_at)] == [made[0].session_id]
    assert len(await store.sessions(limit=2)) == 2
    assert await store.sessions(party_id=PartyId("nobody-x")) == []


async def test_what_a_stop_has_ended_is_found(store: Store) -> None:
    quiet, _ = await store.offer(offer())
    begun, _ = await store.offer(offer())
    await store.note(begun, Step.AGREED, columns={"seat": 2, "channel": "sealed"})
    await store.note(begun, Step.BEGUN)
    over, _ = await store.offer(offer())
    await store.end(over, Overdue("late"), report=False)
    await pending_share(store)
    found = {each.session_id: each for each in await store.interrupted()}
    assert found.keys() == {quiet.session_id, begun.session_id}
    assert not found[quiet.session_id].begun
    assert found[begun.session_id].begun
    assert found[begun.session_id].seat == 2
    assert found[begun.session_id].channel is Channel.SEALED
    assert found[quiet.session_id].channel is None


# ---- Shares ----


async def test_a_share_comes_back_as_it_was_stored(store: Store) -> None:
    row = await pending_share(store)
    assert await store.sealed_row(ShareId(row.share_id)) == row
    share = await store.share(ShareId(row.share_id))
    assert (share.status, share.seat, str(share.threshold)) == (ShareStatus.PENDING, 1, "2-of-3")
    recovered = replace_sealed(row)
    assert await store.sealed_row(ShareId((await stored(store, recovered)).share_id)) == recovered


def replace_sealed(row: wire.ShareRow) -> wire.ShareRow:
    """The same with a recovery wrapping, of another session."""
    under_recovery = wire.Sealed(
        format=1,
        tier="A",
        kek_version=2,
        wrapped_key=bytes(40),
        recovery_wrapped=b"oaep",
        recovery_fingerprint=bytes(32),
        chunks=row.sealed.chunks,
    )
    return share_row(session_id(), OTHER_KEY, sealed=under_recovery, channel="plain", transcript=b"", identities=())


async def stored(store: Store, row: wire.ShareRow) -> wire.ShareRow:
    session, _ = await store.offer(offer(SessionId.of_octets(row.session)))
    await store.pend(session, row, ())
    return row


async def test_status_and_last_use_outlive_the_process(tmp_path: Path) -> None:
    async with open_store(tmp_path / "tssd.db") as store:
        row = await active_share(store)
        share = await store.active_share(ALICE, KEY)
        session, _ = await store.offer(offer(type=SessionType.SIGN, message_hash=HASH))
        await store.complete_signing(session, share, HASH, SIGNATURE)
        await store.quarantine(share.share_id, "a test")
    async with open_store(tmp_path / "tssd.db") as store:
        share = await store.share(ShareId(row.share_id))
        assert share.status is ShareStatus.QUARANTINED
        assert share.last_used_at is not None
        with pytest.raises(ShareNotActive, match="quarantined"):
            await store.active_share(ALICE, KEY)


async def test_only_an_active_share_is_found_to_sign(store: Store) -> None:
    with pytest.raises(NoActiveShare, match="no active share for this public key"):
        await store.active_share(ALICE, KEY)
    row = await pending_share(store)
    with pytest.raises(ShareNotActive, match="pending"):
        await store.active_share(ALICE, KEY)
    share = await store.share(ShareId(row.share_id))
    assert await store.activate(share, confirmed=True)
    assert (await store.active_share(ALICE, KEY)).share_id == share.share_id
    with pytest.raises(NoActiveShare):
        await store.active_share(PartyId("bob-wallet"), KEY)


async def test_activation_writes_report_and_events_once(store: Store) -> None:
    row = await pending_share(store)
    share = await store.share(ShareId(row.share_id))
    assert await store.waiting("report") == []
    assert await store.activate(share, confirmed=True)
    assert not await store.activate(share, confirmed=True)
    (report,) = await store.waiting("report")
    assert report.payload == {"public_key": str(KEY)}
    created, completed = (event.event for event in await store.events(0, 100))
    assert created.keys() == {"type", "shareId", "partyId", "sessionId", "shareType", "publicKey", "occurredAt"}
    assert completed.keys() == {"type", "sessionId", "partyId", "publicKey", "shareId", "occurredAt"}
    assert (created["type"], completed["type"]) == ("ShareCreated", "KeygenCompleted")
    session = await store.session(share.session_id)
    assert (session.status, session.public_key, session.share_id) == (SessionStatus.COMPLETED, KEY, share.share_id)


async def test_a_completed_signing_is_stored_reported_and_published(store: Store) -> None:
    await active_share(store)
    share = await store.active_share(ALICE, KEY)
    session, _ = await store.offer(offer(type=SessionType.SIGN, message_hash=HASH, public_key=KEY))
    await store.complete_signing(session, share, HASH, SIGNATURE)
    assert (await store.session(session.session_id)).signature == SIGNATURE
    assert (await store.waiting("report"))[-1].payload == {"signature": str(SIGNATURE)}
    event = (await store.events(0, 100))[-1].event
    assert event.keys() == {"type", "sessionId", "partyId", "messageHash", "signature", "occurredAt"}
    assert event["type"] == "SigningCompleted"
    assert (await store.share(share.share_id)).last_used_at is not None
    with pytest.raises(Broken, match="has ended"):
        await store.complete_signing(session, share, HASH, SIGNATURE)


async def test_two_keys_never_share_a_modulus(store: Store) -> None:
    fingerprint = bytes(32)
    first, _ = await store.offer(offer())
    await store.pend(first, share_row(first.session_id), (fingerprint,))
    second, _ = await store.offer(offer())
    row = share_row(second.session_id, OTHER_KEY)
    with pytest.raises(Refused, match="serves another key"):
        await store.pend(second, row, (bytes([1]) * 32, fingerprint))
    with pytest.raises(UnknownShare):
        await store.share(ShareId(row.share_id))
    assert await store.known_fingerprints() == (fingerprint,)
    assert (await store.session(second.session_id)).status is SessionStatus.IN_PROGRESS


async def test_confirmations_are_kept_once(store: Store) -> None:
    row = await pending_share(store)
    share = await store.share(ShareId(row.share_id))
    await store.add_confirmations(share, {"b-x": b"one"})
    await store.add_confirmations(share, {"b-x": b"other", "c-x": b"two"})
    assert await store.confirmations(share.share_id) == {"b-x": b"one", "c-x": b"two"}
    steps = [entry for entry in await store.journal(share.session_id, ALICE) if entry.step is Step.CONFIRMED]
    assert [entry.detail["by"] for entry in steps] == ["b-x", "c-x"]


async def test_shares_are_listed_by_what_they_are(store: Store) -> None:
    one = await active_share(store)
    two = await pending_share(store, OTHER_KEY)
    ids = sorted((one.share_id, two.share_id))
    assert [str(share.share_id) for share in await store.shares()] == ids
    assert [str(share.share_id) for share in await store.shares(after=ShareId(ids[0]))] == ids[1:]
    assert [str(share.share_id) for share in await store.shares(status=ShareStatus.PENDING)] == [two.share_id]
    assert [str(share.share_id) for share in await store.shares(public_key=KEY)] == [one.share_id]
    assert len(await store.shares(limit=1)) == 1
    assert await store.count_shares() == {"pending": 1, "active": 1, "rotated": 0, "revoked": 0, "quarantined": 0}


async def test_a_resealed_share_keeps_everything_else(store: Store) -> None:
    row = await active_share(store)
    before = await store.share(ShareId(row.share_id))
    assert [each.share_id for each in await store.sealed_before(2)] == [row.share_id]
    again = wire.ShareRow(**{name: getattr(row, name) for name in row.__struct_fields__} | {"sealed": sealed(2)})
    await store.reseal(again)
    assert await store.sealed_row(ShareId(row.share_id)) == again
    assert await store.share(ShareId(row.share_id)) == before
    assert await store.sealed_before(2) == []


# ---- Pool, pins, outbox ----


async def test_a_set_of_pre_parameters_is_spent_once(store: Store, tmp_path: Path) -> None:
    row = prepared_row()
    await store.add_prepared(row)
    assert await store.prepared_count("gg18-v3") == 1
    assert await store.prepared_count("gg18-v2") == 0
    session, _ = await store.offer(offer())
    assert await store.spend_prepared(session, "gg18-v2") is None
    assert await store.spend_prepared(session, "gg18-v3") == row
    assert await store.spend_prepared(session, "gg18-v3") is None
    left = connect(tmp_path / "tssd.db").execute("SELECT sealed FROM pre_params").fetchall()
    assert left == [("{}",)]


async def test_the_newest_pin_list_counts(store: Store) -> None:
    assert await store.pins() is None
    for number in (2, 1):
        signed = wire.SignedPins(body=b"body%d" % number, signature=b"s")
        await store.add_pins(wire.Pins(number=number, pins=(), signed=signed), "uid:0", "peer-succeeded")
    assert (await store.pins()) == wire.SignedPins(body=b"body2", signature=b"s")


async def test_a_list_begun_anew_is_the_newest(store: Store, tmp_path: Path) -> None:
    """Its number may be one that a lost list had, which the custodian takes no more."""
    lists = [wire.SignedPins(body=body, signature=b"s") for body in (b"lost", b"anew")]
    await store.add_pins(wire.Pins(number=7, pins=(), signed=lists[0]), "uid:0", "peer-succeeded")
    store_pins(tmp_path / "tssd.db", wire.Pins(number=6, pins=(), signed=lists[1]))
    assert await store.pins() == load_pins(tmp_path / "tssd.db") == lists[1]


async def test_what_left_the_outbox_does_not_leave_again(store: Store) -> None:
    await active_share(store)
    await active_share(store, OTHER_KEY)
    first, second = await store.waiting("report")
    await store.attempted(first.number)
    await store.delivered([second.number], refused="409")
    (left,) = await store.waiting("report")
    assert (left.number, left.attempts) == (first.number, 1)
    assert (await store.backlog())["report"][0] == 1
    await store.delivered([first.number])
    assert "report" not in await store.backlog()


# ---- Transactions ----


async def test_one_failure_in_a_shared_commit_is_nobody_elses_loss(store: Store) -> None:
    outcomes: dict[int, str] = {}

    async def write(number: int) -> None:
        def act(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO peers (number, body, signature, at) VALUES (?, ?, ?, '')", (number, b"", b"")
            )
            if number % 3 == 0:
                raise Refused("every third one")

        try:
            await store.write(act)
            outcomes[number] = "stored"
        except Refused:
            outcomes[number] = "refused"

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(write, number)
    stored_numbers = await store.read(
        lambda connection: {row[0] for row in connection.execute("SELECT number FROM peers")}
    )
    assert stored_numbers == {number for number, outcome in outcomes.items() if outcome == "stored"}
    assert len(stored_numbers) == 20


async def test_a_full_disk_is_told_and_passes(store: Store) -> None:
    (pages,) = await store.write(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    await store.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    session = None
    with pytest.raises(AuditUnwritable, match="full"):  # noqa: PT012  how many rows fit is SQLite's business
        for _ in range(500):
            session, _ = await store.offer(offer())
    assert "full" in store.problem
    assert session is None or (await store.session(session.session_id)).status is SessionStatus.IN_PROGRESS
    await store.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.offer(offer())
    assert store.problem == ""


async def test_a_cancelled_writer_leaves_nothing_behind_in_the_queue(store: Store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.offer(offer())
    assert not store._queue
    await store.offer(offer())


async def test_a_cancelled_writer_takes_nobody_with_it(store: Store) -> None:
    """Whoever commits for all may be cancelled; what the others wrote is there."""
    scopes = [trio.CancelScope() for _ in range(20)]
    stored: set[int] = set()

    async def write(number: int) -> None:
        with scopes[number]:
            await store.write(
                lambda connection: connection.execute(
                    "INSERT INTO peers (number, body, signature, at) VALUES (?, x'', x'', '')", (number,)
                )
            )
            stored.add(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
        await trio.lowlevel.checkpoint()
        for scope in scopes[::3]:
            scope.cancel()
    there = await store.read(lambda connection: {row[0] for row in connection.execute("SELECT number FROM peers")})
    assert there >= stored >= {number for number in range(20) if number % 3}


async def test_a_defect_in_one_write_is_raised_there(store: Store) -> None:
    def act(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO peers (number, body, signature, at) VALUES (1, x'', x'', '')")
        raise ZeroDivisionError

    ends: list[str] = []

    async def beside() -> None:
        await store.offer(offer())
        ends.append("stored")

    async def broken() -> None:
        with pytest.raises(ZeroDivisionError):
            await store.write(act)
        ends.append("raised")

    async with trio.open_nursery() as nursery:
        for each in (beside, broken, beside):
            nursery.start_soon(each)
    assert sorted(ends) == ["raised", "stored", "stored"]
    assert await store.pins() is None
    assert len(await store.sessions()) == 2


async def test_the_tables_are_those_of_the_specification(store: Store) -> None:
    (sql,) = await store.read(
        lambda connection: connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'party_shares'").fetchone()
    )
    for column in ("id", "party_id", "session_id", "share_type", "share_data", "public_key", "threshold_n"):
        assert re.search(rf"\b{column}\b", sql)
    row = await active_share(store)
    for change in ("share_type = 'cold'", "status = 'lost'", "threshold_t = 1", "threshold_n = 1"):
        statement = f"UPDATE party_shares SET {change} WHERE id = '{row.share_id}'"  # noqa: S608  values of ours
        with pytest.raises(sqlite3.IntegrityError):
            await store.write(lambda connection, statement=statement: connection.execute(statement))  # type: ignore[misc]


async def test_only_a_pending_share_is_given_up_and_its_complete_set_brings_it_back(store: Store) -> None:
    gone = PeerFault("aborted: b-x ended it", reason="aborted")
    row = await pending_share(store)
    share = await store.share(ShareId(row.share_id))
    assert await store.give_up(share, gone, report=True)
    assert not await store.give_up(share, gone, report=True)
    session = await store.session(share.session_id)
    assert (session.status, session.reason) == (SessionStatus.FAILED, "aborted")
    assert (await store.share(share.share_id)).status is ShareStatus.QUARANTINED
    assert await store.sealed_row(share.share_id) == row
    assert [waiting.payload for waiting in await store.waiting("report")] == [{"error": f"aborted: {gone.message}"}]
    assert not await store.events(0, 10)
    assert await store.activate(share, confirmed=True)
    assert not await store.activate(share, confirmed=True)
    assert not await store.give_up(share, gone, report=True)
    assert (await store.share(share.share_id)).status is ShareStatus.ACTIVE
    assert (await store.session(share.session_id)).status is SessionStatus.FAILED
    assert len(await store.events(0, 10)) == 2

    other = await store.share(ShareId((await active_share(store, OTHER_KEY)).share_id))
    assert not await store.give_up(other, gone, report=True)
    assert (await store.share(other.share_id)).status is ShareStatus.ACTIVE
    await store.quarantine(other.share_id, "did not open for a signing")
    assert not await store.activate(other, confirmed=True)  # its set was complete before; it does not open


async def test_another_process_that_comes_and_goes_leaves_the_log_alone(store: Store, tmp_path: Path) -> None:
    """As `tssctl peer add` does beside a running daemon: who is last folds the log into the database and deletes it."""
    await store.offer(offer())
    path, log = tmp_path / "tssd.db", tmp_path / "tssd.db-wal"
    before = log.stat().st_ino
    visitor = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM journal'); c.close()"
    await trio.run_process([sys.executable, "-c", visitor, str(path)])
    assert log.stat().st_ino == before


@pytest.mark.parametrize("step", Step)
async def test_only_steps_that_decide_something_wait_for_the_disk(store: Store, tmp_path: Path, step: Step) -> None:
    session, _ = await store.offer(offer())
    durable, quick = store._writer.total_changes, store._jotter.total_changes
    await store.note(session, step)
    assert (store._writer.total_changes == durable) is (step in TELLING)
    assert (store._jotter.total_changes > quick) is (step in TELLING)
    with closing(sqlite3.connect(tmp_path / "tssd.db")) as another:  # it is in the file all the same
        rows = another.execute("SELECT step FROM journal ORDER BY number").fetchall()
    assert rows == [(Step.OFFERED,), (step,)]


async def test_quick_writes_never_wait_for_the_disk(store: Store) -> None:
    def pragma(name: str) -> int:
        return int(store._jotter.execute(f"PRAGMA {name}").fetchone()[0])

    assert {name: pragma(name) for name in ("synchronous", "busy_timeout", "wal_autocheckpoint", "foreign_keys")} == {
        "synchronous": 1,
        "busy_timeout": 0,
        "wal_autocheckpoint": 0,
        "foreign_keys": 1,
    }


KILLED = """
import os, signal, sys, trio
from pathlib import Path
from daemon.session import TELLING
from daemon.shares.store import open_store
from tests.daemon.shares.samples import offer

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        session, _ = await store.offer(offer())
        for step in sorted(TELLING):
            await store.note(session, step)
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


async def test_steps_outlive_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "tssd.db"
    ended = await trio.run_process([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    async with open_store(path) as store:
        (session,) = await store.sessions()
        entries = await store.journal(session.session_id, session.party_id)
        assert [entry.step for entry in entries] == [Step.OFFERED, *sorted(TELLING)]


async def test_while_another_process_writes_a_quick_step_waits_its_turn(store: Store, tmp_path: Path) -> None:
    session, _ = await store.offer(offer())
    with closing(sqlite3.connect(tmp_path / "tssd.db", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.note, session, Step.JOINING)
            await trio.testing.wait_all_tasks_blocked()  # nothing else stands still meanwhile
            assert (await store.session(session.session_id)).step is Step.OFFERED
            another.execute("ROLLBACK")
    assert (await store.session(session.session_id)).step is Step.JOINING


async def test_a_quick_step_does_not_overtake_a_durable_one(store: Store) -> None:
    session, _ = await store.offer(offer())
    order = [Step.JOINING, Step.AGREED, Step.BEGUN, Step.NONCE_SPENT, Step.ROUND]

    async def note(step: Step) -> None:
        await store.note(session, step)

    async with trio.open_nursery() as nursery:
        for step in order:
            nursery.start_soon(note, step)
            await trio.testing.wait_all_tasks_blocked(0)
    entries = await store.journal(session.session_id, session.party_id)
    assert [entry.step for entry in entries[1:]] == order


async def test_a_quick_write_that_fails_says_so_and_leaves_nothing(store: Store) -> None:
    session, _ = await store.offer(offer())
    await store.end(session, Overdue("too late"), report=False)
    with pytest.raises(Broken, match="has ended"):
        await store.note(session, Step.ROUND, round_number=1)
    assert not store._jotter.in_transaction
    assert (await store.journal(session.session_id, session.party_id))[-1].step is Step.TIMEOUT
