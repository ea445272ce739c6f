"""A new KEK: every share sealed anew under it, whoever dies at whatever point on the way."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from daemon import settings
from daemon.custody import state as memory
from daemon.custody import wire
from daemon.custody.client import Custodian
from daemon.errors import Refused, TokenLost
from daemon.share import ShareStatus
from daemon.shares import reseal
from daemon.shares.reseal import Resealing
from daemon.shares.store import Store, open_store
from daemon.values import PartyId, PublicKey, ShareId
from daemon.wall import Wall
from tests.daemon.custody.node import Node, init, make_node, sealed_row
from tests.daemon.shares.samples import KEY, OTHER_KEY, offer

A = TypeVar("A", bound=wire.Frame)

ALICE = "alice-server"
TABLES = """
[coordinator]
url = "http://127.0.0.1:1"

[router]
url = "http://127.0.0.1:1"

[limits]
sessions = 8
"""
SECONDS = 60
THIRD_KEY = PublicKey.parse("02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9")


class Killed(BaseException):
    """The network side ends here."""


class Stepped(Wall):
    """A wall before and after whose every request something may happen."""

    def __init__(self, custodian: Custodian, read: settings.Settings, step: Callable[[str], None]) -> None:
        super().__init__(custodian, read)
        self._step = step

    async def ask(self, request: wire.Request, expect: type[A], *, epoch: int | None = None) -> A:
        self._step(f"before {type(request).__name__}")
        answer = await super().ask(request, expect, epoch=epoch)
        self._step(f"after {type(request).__name__}")
        return answer


@pytest.fixture
async def node(arena: None, tmp_path: Path) -> Node:  # noqa: ARG001  (opened by it)
    made = make_node(tmp_path / "alice", ALICE, tables=TABLES)
    await init(made)
    return made


async def fill(node: Node, database: Path, count: int = 3) -> None:
    """A store with shares under the first KEK."""
    keys = (KEY, OTHER_KEY, THIRD_KEY)[:count]
    async with open_store(database) as store:
        for place, key in enumerate(keys):
            session, _ = await store.offer(offer(party_id=PartyId(ALICE)))
            with node.opened() as token:
                row = sealed_row(
                    node,
                    token,
                    3000 + place,
                    share_id=str(ShareId.fresh()),
                    session=session.session_id.octets,
                    public_key=key.octets,
                )
            await store.pend(session, row, (os.urandom(32),))
            await store.activate(await store.share(ShareId(row.share_id)), confirmed=True)


async def finish(resealing: Resealing, store: Store, version: int) -> None:
    """Let it run until every share is under that version."""
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resealing.run)
            while await store.count_sealed_before(version):  # noqa: ASYNC110  (what another task does)
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def all_open_under(custodian: Custodian, store: Store, version: int) -> int:
    """Every share opens, and is under that version; how many there are."""
    rows = await store.sealed_before(version + 1)
    for row in rows:
        assert row.sealed.kek_version == version
        await custodian.ask(wire.OpenAndCheck(row=row), wire.Done)
    return len(rows)


async def current_kek(custodian: Custodian) -> int:
    return (await custodian.ask(wire.GetStatus(), wire.Status)).kek_version


async def killed_at(point: int, custodian: Custodian, read: settings.Settings, database: Path) -> bool:
    """A whole rotation whose network side dies at its point-th step; whether it came so far."""
    steps = iter(range(point + 1))

    def step(_: str = "") -> None:
        if next(steps, None) == point:
            raise Killed

    async with open_store(database) as store:
        write = store.write

        async def stepped(act: Callable[[sqlite3.Connection], object]) -> object:
            step()
            done = await write(act)
            step()
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "write", stepped)
            resealing = Resealing(store, Stepped(custodian, read, step))
            try:
                await resealing.start("operator")
                await resealing._reseal_all()
            except Killed:
                return True
    return False


async def test_a_rotation_is_taken_up_after_any_step(node: Node, tmp_path: Path) -> None:
    database = tmp_path / "tssd.db"
    await fill(node, database)
    read = settings.load(node.config)
    async with node.custodian() as custodian:
        point = 0
        while await killed_at(point, custodian, read, database):
            async with open_store(database) as store:
                version = await current_kek(custodian)
                await finish(Resealing(store, Wall(custodian, read)), store, version)
                assert await all_open_under(custodian, store, version) == 3, point
            point += 1
        # The request for a KEK, its row in the audit, the status, and for each share the request and its row.
        assert point >= 2 * (3 + 2 * 3)
        async with open_store(database) as store:
            assert await all_open_under(custodian, store, await current_kek(custodian)) == 3
            assert {share.status for share in await store.shares(limit=-1)} == {ShareStatus.ACTIVE}
        assert custodian.restarts == 0


async def persistently(custodian: Custodian, resealing: Resealing) -> int:
    """Ask for a rotation until it begins; the version."""
    while True:
        epoch = custodian.epoch
        try:
            version, _ = await resealing.start("operator")
        except TokenLost:
            while custodian.epoch == epoch or not custodian.ready:
                await custodian.wait_change()
        else:
            return version


async def test_a_rotation_goes_on_whenever_the_custodian_dies(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reseal, "RETRY_SECONDS", 0.01)
    database = tmp_path / "tssd.db"
    await fill(node, database, 2)
    read = settings.load(node.config)
    async with node.custodian() as custodian, open_store(database) as store:
        for fatal in ("before NewKekVersion", "after NewKekVersion", "before Reseal", "after Reseal"):
            deaths = [fatal]

            def step(where: str, deaths: list[str] = deaths) -> None:
                if where in deaths:
                    deaths.remove(where)
                    connection = custodian._connection
                    assert connection is not None
                    assert connection._process is not None
                    os.kill(connection._process.pid, signal.SIGKILL)

            restarts = custodian.restarts
            resealing = Resealing(store, Stepped(custodian, read, step))
            with trio.fail_after(SECONDS):
                # Where it fails nothing was promised; whether a key was made is unknown, and asking again does no harm.
                version = await persistently(custodian, resealing)
            await finish(resealing, store, version)
            with trio.fail_after(SECONDS):
                await custodian.wait_ready()
            assert custodian.restarts == restarts + 1, fatal
            assert await all_open_under(custodian, store, version) == 2


async def test_a_share_that_is_refused_keeps_no_other_waiting(node: Node, tmp_path: Path) -> None:
    database = tmp_path / "tssd.db"
    await fill(node, database)
    read = settings.load(node.config)
    async with node.custodian() as custodian, open_store(database) as store:
        first, *others = await store.sealed_before(2)
        await custodian.ask(wire.Revoke(share_id=first.share_id), wire.Done)
        resealing = Resealing(store, Wall(custodian, read))
        assert await resealing.start("operator") == (2, 3)
        with pytest.raises(Refused, match=first.share_id):
            await resealing._reseal_all()
        assert resealing.left == 1
        assert resealing.refused == {first.share_id: f"share {first.share_id} is revoked (row.share_id)"}
        assert [row.share_id for row in await store.sealed_before(2)] == [first.share_id]
        for row in await store.sealed_before(3):
            if row.share_id != first.share_id:
                await custodian.ask(wire.OpenAndCheck(row=row), wire.Done)
        assert len(others) == 2


async def test_what_is_refused_is_said_until_it_is_refused_no_more(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reseal, "RETRY_SECONDS", 0.01)
    database = tmp_path / "tssd.db"
    await fill(node, database)
    read = settings.load(node.config)
    refusing = ["first"]

    class Refusing(Wall):
        async def ask(self, request: wire.Request, expect: type[A], *, epoch: int | None = None) -> A:
            if refusing and isinstance(request, wire.Reseal) and request.row.share_id == first.share_id:
                raise Refused("not now")
            return await super().ask(request, expect, epoch=epoch)

    async with node.custodian() as custodian, open_store(database) as store:
        first, *_ = await store.sealed_before(2)
        resealing = Resealing(store, Refusing(custodian, read))
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(resealing.run)
                await resealing.start("operator")
                while resealing.left > 1 or not resealing.refused:  # noqa: ASYNC110  (what another task does)
                    await trio.sleep(0.01)
                assert resealing.refused == {first.share_id: "not now"}
                refusing.clear()
                while resealing.left:  # noqa: ASYNC110  (likewise)
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert resealing.refused == {}
        assert await all_open_under(custodian, store, 2) == 3


async def test_a_replaced_generation_stays_as_it_is_and_holds_no_rotation_up(node: Node, tmp_path: Path) -> None:
    database = tmp_path / "tssd.db"
    await fill(node, database)
    read = settings.load(node.config)
    async with open_store(database) as store:
        first, second, _ = await store.sealed_before(2)
    with memory.State(node.state) as state:  # all have confirmed newer shares of these two keys
        for row in (first, second):
            state.succeed(ALICE, row.public_key, 1)
    with closing(sqlite3.connect(database)) as connection, connection:  # our store knows of one of them
        connection.execute("UPDATE party_shares SET status = 'rotated' WHERE id = ?", (first.share_id,))
    async with node.custodian() as custodian, open_store(database) as store:
        resealing = Resealing(store, Wall(custodian, read))
        assert await resealing.start("operator") == (2, 2)
        with pytest.raises(Refused, match="generation 1 was confirmed by all"):
            await resealing._reseal_all()
        assert list(resealing.refused) == [second.share_id]
        assert resealing.left == 1
        assert (await store.sealed_row(ShareId(first.share_id))).sealed.kek_version == 1
