"""What goes wrong around a ceremony: the router, the coordinator, the custodian, the disk, a peer; each for real."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from contextlib import aclosing, closing, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from daemon.custody import wire
from daemon.custody.client import Spawn, open_custodian
from daemon.errors import AuditUnwritable, Refused, TokenLost
from daemon.session import SessionStatus, Step
from daemon.share import ShareStatus
from daemon.values import PartyId, SessionId, ShareId
from localnet.party import softhsm
from localnet.router import chain, corrupt, delay, drop, reorder, repeat
from tests.daemon.ceremonies.committee import CALLER, NAMES, Committee, Template, copy_party, open_committee
from tests.hsm import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daemon.desk import Desk
    from daemon.session import Session
    from localnet.router import Delivery, Frame

ALICE, BOB, CAROL = NAMES
PAIR = (ALICE, BOB)
HANG_SECONDS = 2
HELLO, SEALED, CONFIRMATION, NOTICE = 1, 3, 5, 6
"""Kinds of frames, their second byte (docs/channel.md)."""


def completed(ends: dict[str, Session]) -> bool:
    return {end.status for end in ends.values()} == {SessionStatus.COMPLETED}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110  what is waited for has no event on this side
            await trio.sleep(0.01)


def children() -> dict[int, str]:
    """Custodians of this process: command line by process id."""
    found = {}
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and f"PPid:\t{os.getpid()}\n" in (directory / "status").read_text():
                found[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended
            continue
    return found


def custodian_of(committee: Committee, name: str) -> int:
    config = str(committee.parties[name].config)
    (pid,) = (pid for pid, command in children().items() if config in command)
    return pid


async def test_a_bad_network_is_survived(template: Template, tmp_path: Path) -> None:
    rng = Random(7)
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        for mischief in (
            chain(delay(rng, 0.05), reorder(rng, 0.3, 0.1), repeat(rng, 0.5)),
            chain(corrupt(rng, 0.1), drop(rng, 0.1)),
        ):
            committee.router.mischief = mischief
            for number in range(2):
                assert completed(await committee.ended(await committee.sign(template.key, PAIR, bytes([number]) * 32)))


async def test_a_router_connection_that_breaks_loses_no_session(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        taken = 0

        def cut(session: str, _: object) -> None:
            nonlocal taken
            taken += 1
            if taken % 5 == 0:
                committee.router.disconnect(session, PAIR[taken % 2])

        committee.router.tap = cut
        assert completed(await committee.ended(await committee.sign(template.key, PAIR)))
        assert taken > 15


async def test_a_router_that_knows_the_session_only_later(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        committee.router.admitted = set()
        session = await committee.sign(template.key, PAIR)
        desk = committee.desks[ALICE]
        await until(lambda: all(each.waits_for == ("router",) for each in desk.admission.running.values()))
        assert not committee.coordinator.sessions[str(session)].joined  # the stream comes first
        committee.router.admitted.add(str(session))
        assert completed(await committee.ended(session))


async def test_a_coordinator_that_is_down_delays_and_loses_nothing(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        made = committee.coordinator.create_signing(template.key, PAIR, "00" * 32)
        session = SessionId(made.session_id)
        committee.coordinator.down = True
        for name in PAIR:
            desk = committee.desks[name]
            await desk.participate_signing(committee.signing_command(made, name, template.key), CALLER)
        running = committee.desks[ALICE].admission.running
        await until(lambda: any("503" in wait for each in running.values() for wait in each.waits_for))
        committee.coordinator.down = False

        def down_after_joins(route: str, answer: dict[str, object]) -> dict[str, object]:
            if route == "join" and len(committee.coordinator.sessions[str(session)].joined) == len(PAIR):
                committee.coordinator.down = True
            return answer

        committee.coordinator.alter = down_after_joins
        assert completed(await committee.ended(session))
        assert not committee.coordinator.sessions[str(session)].reports
        committee.coordinator.down = False
        with trio.fail_after(30):
            assert (await committee.coordinator.outcome(str(session))).status == "completed"


async def test_a_custodian_that_dies_fails_its_session_and_is_brought_back(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        killed = False

        def kill(_: str, frame: object) -> None:
            nonlocal killed
            if not killed and getattr(frame, "round_number", 0) >= 2:
                killed = True
                os.kill(custodian_of(committee, ALICE), signal.SIGKILL)

        committee.router.tap = kill
        ends = await committee.ended(await committee.sign(template.key, PAIR), (ALICE,))
        assert ends[ALICE].status is SessionStatus.FAILED
        assert ends[ALICE].reason == "custody-lost"
        desk = committee.desks[ALICE]
        began = trio.current_time()
        with trio.fail_after(10):
            await desk.custodian.wait_ready()
        assert trio.current_time() - began < 5
        assert (await desk.readiness()).ready
        for running in list(committee.desks[BOB].admission.running.values()):
            running._total.cancel()  # its stall clock would do it
        assert completed(await committee.ended(await committee.sign(template.key, PAIR, b"\1" * 32)))


async def test_a_custodian_that_hangs_in_the_hsm_keeps_nobody_waiting(template: Template, tmp_path: Path) -> None:
    """Its ceremony ends with a typed reason, it is back, and what does not need it is answered meanwhile."""
    control = fault.Control(tmp_path / "control")
    directory = tmp_path / "committee"
    custodian = {
        "module_path": fault.build(tmp_path),
        "module_environment": {
            "SOFTHSM2_CONF": directory / ALICE / "token" / "softhsm2.conf",
            "TSSD_FAULT_TARGET": softhsm(),
            "TSSD_FAULT_CONTROL": control.path,
        },
        "hsm_call_seconds": HANG_SECONDS,
    }
    async with open_committee(template, directory, tables={ALICE: {"custodian": custodian}}, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        control.fault("C_Decrypt", fault.Action.HANG)
        before = control.calls("C_Decrypt")
        session = await committee.sign(template.key, PAIR)
        await until(lambda: control.calls("C_Decrypt") > before)
        slowest, began = 0.0, trio.current_time()
        while (end := await desk.session(session)).status is SessionStatus.IN_PROGRESS:
            asked = trio.current_time()
            assert len(await desk.shares()) == 1
            await desk.readiness()
            slowest = max(slowest, trio.current_time() - asked)
            assert trio.current_time() - began < 10
        assert (end.status, end.reason) == (SessionStatus.FAILED, "custody-lost")
        assert trio.current_time() - began > HANG_SECONDS / 2, "nothing hung"
        assert slowest < HANG_SECONDS / 2
        with trio.fail_after(10):
            await desk.custodian.wait_ready()
        assert desk.custodian.restarts == 1
        for running in list(committee.desks[BOB].admission.running.values()):
            running._total.cancel()  # its stall clock would do it
        assert completed(await committee.ended(await committee.sign(template.key, PAIR, b"\1" * 32)))


async def test_while_the_token_is_away_nothing_starts_and_the_rest_answers(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=(ALICE,)) as committee:
        desk = committee.desks[ALICE]
        token = committee.parties[ALICE].directory / "token"
        token.rename(token.with_name("away"))
        with suppress(ProcessLookupError):  # it may have noticed by itself
            os.kill(custodian_of(committee, ALICE), signal.SIGKILL)
        await until(lambda: not desk.custodian.ready)
        readiness = await desk.readiness()
        assert not readiness.ready
        assert readiness.reasons
        with pytest.raises(TokenLost):
            await committee.sign(template.key, PAIR, among=(ALICE,))
        assert len(await desk.shares()) == 1
        token.with_name("away").rename(token)
        with trio.fail_after(30):
            await desk.custodian.wait_ready()
        assert (await desk.readiness()).ready


async def test_a_peer_that_gives_up_is_heard_at_once(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        stopped = False

        def stop(session: str, frame: object) -> None:
            nonlocal stopped
            if not stopped and getattr(frame, "round_number", 0) >= 1:
                stopped = True
                running = committee.desks[BOB].admission.running[SessionId(session), PartyId(BOB)]
                running._total.cancel()  # as its clock does

        committee.router.tap = stop
        began = trio.current_time()
        ends = await committee.ended(await committee.sign(template.key, PAIR))
        assert ends[BOB].status is SessionStatus.TIMEOUT
        assert ends[ALICE].status is SessionStatus.FAILED
        assert ends[ALICE].culprits == ()
        assert trio.current_time() - began < 20  # far below the stall clock's minute


async def test_a_share_that_was_altered_is_set_aside(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=(BOB,)) as committee:
        database = committee.parties[ALICE].database
        with closing(sqlite3.connect(database)) as connection:
            (share_id, data) = connection.execute("SELECT id, share_data FROM party_shares").fetchone()
            at = data.index('"data":"') + 20
            changed = data[:at] + ("A" if data[at] != "A" else "B") + data[at + 1 :]
            connection.execute("UPDATE party_shares SET share_data = ?", (changed,))
            connection.commit()
        await committee.start(ALICE)
        ends = await committee.ended(await committee.sign(template.key, PAIR), (ALICE,))
        assert ends[ALICE].reason == "share-altered"
        share = await committee.desks[ALICE].share(ShareId(share_id))
        assert share.status is ShareStatus.QUARANTINED


async def test_a_token_without_its_newest_kek_takes_no_share_away(template: Template, tmp_path: Path) -> None:
    """An older copy of the token: its canary opens, and the share that is under the newer KEK does not."""
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        tokens = next(committee.parties[ALICE].directory.glob("**/tokens"))
        older, newer = tmp_path / "older", tmp_path / "newer"
        shutil.copytree(tokens, older)
        desk = committee.desks[ALICE]
        await desk.rotate_kek(CALLER)
        await until(lambda: not desk.resealing.left)
        assert await desk.store.count_sealed_before(2) == 0
        shutil.copytree(tokens, newer)
        shutil.rmtree(tokens)
        shutil.copytree(older, tokens)
        os.kill(custodian_of(committee, ALICE), signal.SIGKILL)
        await until(lambda: desk.custodian.status is not None and desk.custodian.status.state == "token")
        (reason,) = (await desk.readiness()).reasons
        assert "KEK version 2 is gone from the token" in reason
        for attempt in range(2):
            with pytest.raises(TokenLost):
                await committee.sign(template.key, PAIR, bytes([attempt]) * 32, among=(ALICE,))
        assert [share.status for share in await desk.shares()] == [ShareStatus.ACTIVE]
        shutil.rmtree(tokens)
        shutil.copytree(newer, tokens)
        with trio.fail_after(30):
            await desk.custodian.wait_ready()
        assert completed(await committee.ended(await committee.sign(template.key, PAIR, b"\7" * 32)))
        assert [share.status for share in await desk.shares()] == [ShareStatus.ACTIVE]


async def test_a_custodians_state_that_was_put_back_is_told(template: Template, tmp_path: Path) -> None:
    tables = {"*": {"audit": {"checkpoint_rows": 1}}}
    async with open_committee(template, tmp_path, tables=tables, start=PAIR) as committee:
        state = next(committee.parties[ALICE].directory.glob("**/chain")).parent
        desk = committee.desks[ALICE]
        shutil.copytree(state, tmp_path / "older")
        assert completed(await committee.ended(await committee.sign(template.key, PAIR)))
        chain = (await desk.custody()).chain_count
        await committee.stop(ALICE)  # its last checkpoint is signed now
        shown = set()

        def told() -> bool:
            status = committee.desks[ALICE].custodian.status
            return status is not None and status.chain_problem != ""

        state.rename(tmp_path / "newer")
        shutil.copytree(tmp_path / "older", state)
        for _ in range(2):  # no checkpoint of what was put back makes it the newest
            await committee.start(ALICE)
            desk = committee.desks[ALICE]
            await until(told)
            readiness = await desk.readiness()
            assert not readiness.ready
            (reason,) = readiness.reasons
            assert "the state is older than a checkpoint" in reason
            assert f"put the newest {state} back" in reason
            assert reason == (await desk.custody()).chain_problem
            with suppress(Refused):
                ends = await committee.ended(await committee.sign(template.key, PAIR, among=(ALICE,)), (ALICE,))
                assert ends[ALICE].reason == "refused"
                assert "older than a checkpoint" in str(ends[ALICE].error_message)
            shown.add(await desk.store.newest_checkpoint())
            assert [share.status for share in await desk.shares()] == [ShareStatus.ACTIVE]
            await committee.stop(ALICE)
        assert [newest.chain_count >= chain for newest in shown if newest is not None] == [True]
        shutil.rmtree(state)
        (tmp_path / "newer").rename(state)
        await committee.start(ALICE)
        assert completed(await committee.ended(await committee.sign(template.key, PAIR, b"\7" * 32)))
        assert (await committee.desks[ALICE].readiness()).ready


async def test_nothing_is_signed_when_the_audit_log_cannot_be_written(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        desk = committee.desks[ALICE]

        async def unwritable(*, on: bool) -> None:
            await desk.store.read(lambda _: desk.store._writer.execute(f"PRAGMA query_only = {int(on)}"))

        sent: list[object] = []
        committee.router.tap = lambda _, frame: sent.append(frame) if frame.from_party == ALICE else None
        await unwritable(on=True)
        with pytest.raises(AuditUnwritable):
            await committee.sign(template.key, PAIR, among=(ALICE,))
        assert not sent
        readiness = await desk.readiness()
        assert not readiness.ready
        assert "readonly" in str(readiness.reasons)
        assert await desk.shares()
        await unwritable(on=False)
        assert completed(await committee.ended(await committee.sign(template.key, PAIR)))
        assert (await desk.readiness()).ready
        assert (await desk.verify_audit()).whole


# ---- Confirmations ----


async def pending_at(committee: Committee, session: SessionId, name: str) -> ShareId:
    """Wait until a party's share of a keygen is pending."""
    with trio.fail_after(60):
        async with aclosing(committee.desks[name].follow(session)) as news:
            async for entries in news:
                for entry in entries:
                    assert entry.step not in {Step.FAILED, Step.TIMEOUT}, entry.detail
                    if entry.step is Step.PENDING:
                        return ShareId(str(entry.detail["shareId"]))
    raise AssertionError


async def test_a_share_is_pending_until_the_last_confirmation_whatever_happens(
    template: Template, tmp_path: Path
) -> None:
    tables = {"*": {"limits": {"keygen_seconds": 300, "stall_seconds": 60}}}
    async with open_committee(template, tmp_path, tables=tables) as committee:
        quiet = False

        def silence(delivery: Delivery) -> Iterable[Delivery]:
            """Once Carol's share is pending, she says nothing to anybody any more."""
            return [] if quiet and delivery.from_party == CAROL else [delivery]

        committee.router.mischief = silence

        async def listen() -> None:
            nonlocal quiet
            async with aclosing(committee.desks[CAROL].follow(session)) as news:
                async for entries in news:
                    quiet = quiet or any(entry.step is Step.ROUND and entry.round >= 4 for entry in entries)

        session = await committee.keygen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            shares = {name: await pending_at(committee, session, name) for name in NAMES}
            quiet = True
            nursery.cancel_scope.cancel()
        alice = committee.desks[ALICE]
        view = await alice.confirmations(session)
        if CAROL in view.missing:
            assert (await alice.share(shares[ALICE])).status is ShareStatus.PENDING
            assert not committee.coordinator.sessions[str(session)].reports.get(ALICE)
        await committee.stop(ALICE)
        await committee.start(ALICE)
        quiet = False
        ends = await committee.ended(session)
        assert completed(ends)
        alice = committee.desks[ALICE]
        assert (await alice.share(shares[ALICE])).status is ShareStatus.ACTIVE
        with trio.fail_after(30):
            await committee.coordinator.outcome(str(session))
        key = str(ends[ALICE].public_key)
        assert completed(await committee.ended(await committee.sign(key, PAIR), PAIR))


async def test_confirmations_can_be_carried_by_hand(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path) as committee:

        def withhold(delivery: Delivery) -> Iterable[Delivery]:
            return [] if delivery.to_party == ALICE and delivery.payload[1] == CONFIRMATION else [delivery]

        committee.router.mischief = withhold
        session = await committee.keygen()
        shares = {name: await pending_at(committee, session, name) for name in (ALICE, BOB)}
        await committee.ended(session, (BOB, CAROL))
        alice = committee.desks[ALICE]
        missing = set((await alice.confirmations(session)).missing)
        statements = list((await committee.desks[BOB].confirmations(session)).statements)
        assert len(statements) == 3
        with pytest.raises(Refused, match="is active"):
            await committee.desks[BOB].quarantine(shares[BOB], CALLER)
        # Whoever does not want to wait any longer has it set aside; what comes late counts all the same.
        assert (await alice.quarantine(shares[ALICE], CALLER)).status is ShareStatus.QUARANTINED
        end = (await committee.ended(session, (ALICE,)))[ALICE]
        assert (end.status, end.reason) == (SessionStatus.TIMEOUT, "overdue")
        assert end.error_message == f"keygen: given up by {CALLER.name}; waiting for {', '.join(sorted(missing))}"
        with pytest.raises(Refused, match="is quarantined"):
            await alice.quarantine(shares[ALICE], CALLER)
        altered = [bytes([statements[0][0] ^ 1]) + statements[0][1:], b"", b"x" * 20000, statements[1][:-1]]
        view = await alice.take_confirmations(session, None, altered, CALLER)
        assert set(view.missing) == missing
        view = await alice.take_confirmations(session, None, statements, CALLER)
        assert view.missing == ()
        assert (await alice.share(shares[ALICE])).status is ShareStatus.ACTIVE


async def refuse_new_shares(committee: Committee, name: str) -> None:
    """From now on this party cannot store a new share: its store takes every value in it for another key's."""
    await committee.desks[name].store.write(
        lambda connection: connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON fingerprints BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    )


async def given_up(committee: Committee, session: SessionId, name: str) -> ShareId:
    """The party's session has failed, and its share is set aside with everything in it."""
    desk = committee.desks[name]
    end = await desk.session(session)
    assert (end.status, end.reason) == (SessionStatus.FAILED, "aborted")
    assert end.share_id is not None
    assert (await desk.share(end.share_id)).status is ShareStatus.QUARANTINED
    row = await desk.store.sealed_row(end.share_id)
    assert await desk.wall.ask(wire.OpenAndCheck(row=row), wire.Done) == wire.Done()
    assert "share-given-up" in {each.action for each in await desk.audit(limit=10000)}
    assert not [event for event in await desk.events() if event.event.get("sessionId") == str(session)]
    return end.share_id


async def test_a_party_that_cannot_store_its_share_ends_the_keygen_for_all(template: Template, tmp_path: Path) -> None:
    """However late the others hear of it: at once, or after a restart of theirs."""
    async with open_committee(template, tmp_path) as committee:
        await refuse_new_shares(committee, CAROL)
        session = await committee.keygen()
        ends = await committee.ended(session)
        assert (ends[CAROL].reason, ends[CAROL].share_id) == ("refused", None)
        for name in PAIR:
            await given_up(committee, session, name)

        committee.router.mischief = lambda delivery: [] if delivery.payload[1] == NOTICE else [delivery]
        session = await committee.keygen()
        await committee.ended(session, (CAROL,))
        await pending_at(committee, session, ALICE)
        await committee.stop(ALICE)
        await committee.start(ALICE)
        assert (await committee.desks[ALICE].session(session)).status is SessionStatus.IN_PROGRESS
        committee.router.mischief = None
        await committee.ended(session)
        for name in PAIR:
            await given_up(committee, session, name)
        assert completed(await committee.ended(await committee.sign(template.key, PAIR), PAIR))


async def test_a_party_that_confirms_and_withdraws_takes_no_share_away(template: Template, tmp_path: Path) -> None:
    """Carol confirms to Alice and tells Bob, signed, that it is over: Bob's share waits for whoever proves the lie."""
    async with open_committee(template, tmp_path) as committee:
        committee.router.mischief = lambda delivery: (
            [] if delivery.to_party == BOB and delivery.payload[1] == CONFIRMATION else [delivery]
        )
        session = await committee.keygen()
        ends = await committee.ended(session, (ALICE, CAROL))
        assert completed(ends)
        bob = committee.desks[BOB]
        share_id = await pending_at(committee, session, BOB)
        liar = copy_party(template.parties[CAROL], tmp_path / "copy")
        liar.configure("http://127.0.0.1:9", "http://127.0.0.1:9", {"custodian": {"arena_mib": 4}})
        async with open_custodian(Spawn(config=liar.config, trusted_config=True)) as custodian:
            with trio.fail_after(30):
                await custodian.wait_ready()
            abort = wire.AbortUnknown(session=session.octets, party_id=CAROL, seat=3, reason="internal")
            notice = (await custodian.ask(abort, wire.Statement)).data
        for name in (ALICE, BOB):  # what is active stays so
            await committee.desks[name].take_confirmations(session, None, [notice], CALLER)
        assert (await committee.desks[ALICE].share(ends[ALICE].share_id or share_id)).status is ShareStatus.ACTIVE
        assert await given_up(committee, session, BOB) == share_id
        statements = list((await committee.desks[ALICE].confirmations(session)).statements)
        view = await bob.take_confirmations(session, None, [notice, *statements[:2]], CALLER)
        assert view.missing
        assert (await bob.share(share_id)).status is ShareStatus.QUARANTINED
        for _ in range(2):
            view = await bob.take_confirmations(session, None, [notice, *statements], CALLER)
            assert view.missing == ()
            assert (await bob.share(share_id)).status is ShareStatus.ACTIVE
        assert (await bob.session(session)).status is SessionStatus.FAILED
        events = [each.event["type"] for each in await bob.events() if each.event["sessionId"] == str(session)]
        assert events == ["ShareCreated", "KeygenCompleted"]
        with trio.fail_after(30):
            assert (await committee.coordinator.outcome(str(session))).status == "completed"
        key = str(ends[ALICE].public_key)
        assert completed(await committee.ended(await committee.sign(key, PAIR), PAIR))


async def test_a_crash_is_told_to_the_peers(template: Template, tmp_path: Path) -> None:
    """As after kill -9: the row says in progress, nobody knows the ceremony any more."""
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        held: list[bool] = []

        def hold(delivery: Delivery) -> Iterable[Delivery]:
            """Bob's rounds never arrive; so both are in the middle of it."""
            if delivery.round_number >= 2 and delivery.from_party == BOB and not held:
                return []
            return [delivery]

        committee.router.mischief = hold
        session = await committee.sign(template.key, PAIR)
        desk = committee.desks[BOB]
        with trio.fail_after(30):
            async with aclosing(desk.follow(session)) as news:
                async for entries in news:
                    if entries[-1].round >= 2:
                        break
        copied = committee.parties[BOB].directory / "state" / "copy.db"
        await as_it_is_now(desk, copied)
        await committee.stop(BOB)
        for old in copied.parent.glob("tssd.db*"):
            old.unlink()
        copied.rename(copied.with_name("tssd.db"))
        held.append(True)
        await committee.start(BOB)
        after = await committee.desks[BOB].session(session)
        assert (after.status, after.reason) == (SessionStatus.FAILED, "restart")
        ends = await committee.ended(session, (ALICE,))
        assert ends[ALICE].status is SessionStatus.FAILED


async def as_it_is_now(desk: Desk, copy: Path) -> None:
    await desk.store.read(lambda connection: connection.execute("VACUUM INTO ?", (str(copy),)))


# ---- What is written down, and when ----


def kinds_from(name: str, frames: list[Frame]) -> list[int]:
    return [frame.payload[1] for frame in frames if frame.from_party == name]


async def test_the_nonce_is_spent_in_the_journal_before_anything_sealed_leaves(
    template: Template, tmp_path: Path
) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        found: dict[str, list[str]] = {}

        def look(_: str, frame: Frame) -> None:
            if frame.payload[1] == SEALED and frame.from_party not in found:
                with closing(sqlite3.connect(committee.parties[frame.from_party].database)) as connection:
                    rows = connection.execute("SELECT step FROM journal ORDER BY number DESC LIMIT 2").fetchall()
                found[frame.from_party] = [step for (step,) in rows]

        committee.router.tap = look
        assert completed(await committee.ended(await committee.sign(template.key, PAIR)))
        assert found == {name: [Step.NONCE_SPENT, Step.BEGUN] for name in PAIR}


async def test_nothing_sealed_leaves_when_the_log_cannot_be_written_any_more(
    template: Template, tmp_path: Path
) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        sent: list[Frame] = []

        def fill_the_disk(_: str, frame: Frame) -> None:
            sent.append(frame)
            if frame.from_party == ALICE and frame.payload[1] == HELLO:  # it has begun, the nonce is not spent
                desk.store._writer.execute("PRAGMA query_only = 1")

        committee.router.tap = fill_the_disk
        session = await committee.sign(template.key, PAIR)
        await until(lambda: NOTICE in kinds_from(ALICE, sent))
        assert (await desk.session(session)).status is SessionStatus.IN_PROGRESS  # its end cannot be written either
        committee.router.tap = None
        desk.store._writer.execute("PRAGMA query_only = 0")
        ends = await committee.ended(session)
        assert not set(kinds_from(ALICE, sent)) & {SEALED, CONFIRMATION}
        assert ends[ALICE].reason == AuditUnwritable.kind
        assert (ends[BOB].status, ends[BOB].reason) == (SessionStatus.FAILED, "aborted")
        assert completed(await committee.ended(await committee.sign(template.key, PAIR)))


async def test_a_farewell_is_no_session_under_way(template: Template, tmp_path: Path) -> None:
    """A peer's last word is lost: we have the signature, and go on answering, but nothing stands still."""
    async with open_committee(template, tmp_path, start=PAIR) as committee:

        def lose(delivery: Delivery) -> Iterable[Delivery]:
            return [] if delivery.payload[1] == CONFIRMATION and delivery.from_party == BOB else [delivery]

        committee.router.mischief = lose
        desk = committee.desks[ALICE]
        assert completed(await committee.ended(await committee.sign(template.key, PAIR), (ALICE,)))
        assert desk.admission.running
        await desk.refresh_metrics()
        figures = {
            (sample.name, *sample.labels.values()): sample.value
            for metric in desk.metrics.registry.collect()
            for sample in metric.samples
        }
        assert figures["tssd_sessions_running", "sign"] == 0
        assert figures["tssd_seconds_since_progress",] == 0
        assert not any(value for name, value in figures.items() if name[0] == "tssd_sessions_waiting")


def telling(desk: Desk, monkeypatch: pytest.MonkeyPatch, **told: object) -> None:
    """From now on the custodian says this, too, when a ceremony is complete."""
    ask = desk.wall.ask

    async def asked(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the wall takes
        answer = await ask(*arguments, **named)
        complete = isinstance(answer, wire.Progress) and answer.state == "complete"
        return msgspec.structs.replace(answer, **told) if complete else answer

    monkeypatch.setattr(desk.wall, "ask", asked)


async def test_a_session_that_gets_over_a_fault_names_who_did_it(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        fault = wire.FaultReport(
            reason="equivocation",
            detail="a broadcast of round 9, in two versions",
            round=9,
            culprits=(BOB,),
            hearsay=(),
            authenticated=True,
            evidence=(b"one version", b"another"),
        )
        telling(desk, monkeypatch, fault=fault)
        session = await committee.sign(template.key, PAIR)
        await committee.ended(session)
        await desk.admission.wait_idle()
        end = await desk.session(session)
        assert (end.status, end.culprits) == (SessionStatus.COMPLETED, (BOB,))
        (row,) = [row for row in await desk.audit(limit=1000) if row.action == "peer-fault"]
        assert row.subject["evidence"] == [b"one version".hex(), b"another".hex()]
        assert row.subject["culprits"] == [BOB]
        assert row.subject["sessionId"] == str(session)
        assert (await desk.verify_audit()).whole


async def test_an_abort_after_a_confirmation_is_audited(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        telling(desk, monkeypatch, aborts_ignored=1)
        session = await committee.sign(template.key, PAIR)
        assert completed(await committee.ended(session))
        await desk.admission.wait_idle()
        (row,) = [row for row in await desk.audit(limit=1000) if row.action == "abort-ignored"]
        assert row.subject["sessionId"] == str(session)
