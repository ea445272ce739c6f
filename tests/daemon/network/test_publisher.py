from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.errors import SettingsRefused
from daemon.events import timestamp
from daemon.network.coordinator import open_coordinator
from daemon.network.publisher import _append, _report_all, publish_events, publish_reports
from daemon.settings import CoordinatorSettings
from daemon.shares import rows
from daemon.shares.store import Store, open_store
from daemon.values import PublicKey, now
from localnet.coordinator import Coordinator as Reference
from localnet.coordinator import CoordinatorRefused
from tests.daemon.shares.samples import KEY, OTHER_KEY, active_share

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path

THIRD_KEY = PublicKey.parse("02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "tssd.db") as opened:
        yield opened


async def until_empty(store: Store, kind: str) -> None:
    while await store.waiting(kind):  # noqa: ASYNC110  the publisher tells nobody when it is done
        await trio.sleep(0.01)


async def until_left(store: Store, count: int) -> None:
    while len(await store.waiting("report")) > count:  # noqa: ASYNC110  likewise
        await trio.sleep(0.01)


def more_keys(count: int) -> list[PublicKey]:
    """So many public keys."""
    private = [ec.derive_private_key(number, ec.SECP256K1()) for number in range(2, 2 + count)]
    form = Encoding.X962, PublicFormat.CompressedPoint
    return [PublicKey.parse(key.public_key().public_bytes(*form).hex()) for key in private]


def add_report(connection: sqlite3.Connection, session: dict[str, str], public_key: PublicKey) -> None:
    payload = json.dumps({"public_key": str(public_key)})
    columns = {"kind": "report", **session, "payload": payload, "created_at": timestamp(now())}
    connection.execute(*rows.insert("outbox", columns))


class Scripted(Reference):
    """Takes any report, in whatever way the script says: status by public key, 200 where nothing is said."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[int]] = {}
        self.seen: list[str] = []

    def report(self, report: object) -> None:
        key = str(getattr(report, "public_key", ""))
        self.seen.append(key)
        status = (self.answers.get(key) or [200]).pop(0)
        if status != 200:
            raise CoordinatorRefused(status, "scripted")


async def published(store: Store, reference: Scripted) -> None:
    async with (
        reference.serving() as url,
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(publish_reports, store, coordinator)
        with trio.fail_after(10):
            await until_empty(store, "report")
        nursery.cancel_scope.cancel()


async def test_reports_leave_in_order_and_once(store: Store) -> None:
    for key in (KEY, OTHER_KEY, THIRD_KEY):
        await active_share(store, key)
    reference = Scripted()
    await published(store, reference)
    assert reference.seen == [str(KEY), str(OTHER_KEY), str(THIRD_KEY)]


async def test_a_coordinator_that_is_down_delays_and_loses_nothing(store: Store) -> None:
    await active_share(store, KEY)
    await active_share(store, OTHER_KEY)
    reference = Scripted()
    reference.answers = {str(KEY): [503, 502, 200], str(OTHER_KEY): [503]}
    await published(store, reference)
    assert reference.seen.count(str(KEY)) == 3
    assert reference.seen.count(str(OTHER_KEY)) == 2


async def test_a_refused_report_is_marked_and_does_not_hold_up_the_others(store: Store) -> None:
    await active_share(store, KEY)
    await active_share(store, OTHER_KEY)
    reference = Scripted()
    reference.answers = {str(KEY): [409]}
    await published(store, reference)
    assert reference.seen == [str(KEY), str(OTHER_KEY)]
    refusals = [row for row in await store.audit_rows(0, 100) if row.action == "report-refused"]
    assert "409" in str(refusals[0].subject["why"])


STUCK = 5
"""More than fail in a row before the coordinator counts as away."""


async def test_reports_that_always_fail_do_not_hold_up_the_others(store: Store) -> None:
    keys = more_keys(STUCK + 3)
    *first, last = keys
    for key in first:
        await active_share(store, key)
    stuck, behind = [str(key) for key in first[:STUCK]], [str(key) for key in first[STUCK:]]
    reference = Scripted()
    reference.answers = {key: [503] * 10_000 for key in stuck}
    async with (
        reference.serving() as url,
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(publish_reports, store, coordinator)
        with trio.fail_after(20):
            await until_left(store, STUCK)
            assert [key for key in reference.seen if key in behind] == behind
            await active_share(store, last)
            await until_left(store, STUCK)
        nursery.cancel_scope.cancel()
    assert {report.payload["public_key"] for report in await store.waiting("report")} == set(stuck)
    assert reference.seen.index(str(last)) > reference.seen.index(behind[-1])
    tries = [reference.seen.count(key) for key in stuck]
    assert max(tries) - min(tries) <= 1


async def test_what_is_new_is_reported_before_what_failed_is_tried_again(store: Store) -> None:
    """Nothing but the clock brings the failed one back, and that stands still."""
    await active_share(store, KEY)
    reference = Scripted()
    reference.answers = {str(KEY): [503]}
    async with (
        reference.serving() as url,
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
    ):
        assert not await _report_all(store, coordinator, again=True)
        await active_share(store, OTHER_KEY)
        assert not await _report_all(store, coordinator, again=False)
        assert reference.seen == [str(KEY), str(OTHER_KEY)]
        assert await _report_all(store, coordinator, again=True)
    assert reference.seen == [str(KEY), str(OTHER_KEY), str(KEY)]


async def test_reports_of_one_session_leave_in_their_order(store: Store) -> None:
    """A keygen that was given up, and then completed after all: the first report fails, the second waits for it."""
    row = await active_share(store, KEY)
    (report,) = await store.waiting("report")
    second = {"session_id": str(report.session_id), "party_id": str(report.party_id)}
    await store.write(lambda connection: add_report(connection, second, OTHER_KEY))
    await active_share(store, THIRD_KEY)
    reference = Scripted()
    reference.answers = {str(KEY): [503, 200]}
    await published(store, reference)
    assert reference.seen == [str(KEY), str(THIRD_KEY), str(KEY), str(OTHER_KEY)], row


async def test_a_report_that_comes_later_wakes_the_publisher(store: Store) -> None:
    reference = Scripted()
    async with (
        reference.serving() as url,
        open_coordinator(CoordinatorSettings(url=url)) as coordinator,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(publish_reports, store, coordinator)
        await trio.testing.wait_all_tasks_blocked(0.1)
        await active_share(store)
        with trio.fail_after(10):
            await until_empty(store, "report")
        nursery.cancel_scope.cancel()
    assert reference.seen == [str(KEY)]


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_events_are_lines_in_order(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    row = await active_share(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_events, store, file)
        with trio.fail_after(10):
            await until_empty(store, "event")
        await active_share(store, OTHER_KEY)
        with trio.fail_after(10):
            await until_empty(store, "event")
        nursery.cancel_scope.cancel()
    found = lines(file)
    assert [line["type"] for line in found] == ["ShareCreated", "KeygenCompleted"] * 2
    assert found[0]["shareId"] == row.share_id
    assert [line["number"] for line in found] == [event.number for event in await store.events(0, 100)]
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("cut", [0, 1, 7, 200])
async def test_a_line_that_a_crash_cut_short_is_replaced(store: Store, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "events.jsonl"
    await active_share(store)
    await trio.to_thread.run_sync(_append, file, await store.waiting("event"))
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    file.write_bytes(whole[: first + cut])  # the second was being written; neither was marked
    await trio.to_thread.run_sync(_append, file, (await store.waiting("event"))[1:])
    assert file.read_bytes() == whole


@pytest.mark.parametrize("left", [b"", b"{", b'{"number":7,"type":"Share', b'{"num\0\0\0', b"\0" * 900, b"\0" * 10_000])
async def test_what_a_crash_left_of_the_first_line_is_replaced(store: Store, tmp_path: Path, left: bytes) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(left)
    await active_share(store)
    await trio.to_thread.run_sync(_append, file, await store.waiting("event"))
    assert [line["type"] for line in lines(file)] == ["ShareCreated", "KeygenCompleted"]


@pytest.mark.parametrize(
    "content",
    [
        b"the wallet's only backup",
        b"\x7fELF" + bytes(range(256)) * 9000,  # without a newline in its last megabytes, too
        b'{"number":1}\nand what somebody wrote under it',
        b'{"number":1' + b" " * 5000,
        b'{"number":1}\n' + b"\0" * 500_000,
    ],
)
async def test_a_file_that_is_no_event_file_is_refused_and_left_alone(
    store: Store, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(content.replace(b"\n", b"") if content.startswith(b"\x7f") else content)
    before = file.read_bytes()
    await active_share(store)
    with pytest.raises(SettingsRefused, match=r"ends with something that is no event") as refused:
        await trio.to_thread.run_sync(_append, file, await store.waiting("event"))
    assert "events.file" in refused.value.remedy
    assert file.read_bytes() == before
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_events, store, file)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(await store.waiting("event")) == 2
        file.rename(tmp_path / "elsewhere")
        with trio.fail_after(10):
            await until_empty(store, "event")
        nursery.cancel_scope.cancel()
    assert [line["type"] for line in lines(file)] == ["ShareCreated", "KeygenCompleted"]


async def test_zeros_behind_whole_lines_are_cut_off(store: Store, tmp_path: Path) -> None:
    """A loss of power, after the length of a whole batch was on the disk and before its content was."""
    file = tmp_path / "events.jsonl"
    await active_share(store)
    waiting = await store.waiting("event")
    await trio.to_thread.run_sync(_append, file, waiting[:1])
    before = file.read_bytes()
    file.write_bytes(before + b"\0" * 9000)
    await trio.to_thread.run_sync(_append, file, waiting[1:])
    assert file.read_bytes().startswith(before)
    assert [line["type"] for line in lines(file)] == ["ShareCreated", "KeygenCompleted"]


async def test_a_file_that_cannot_be_written_is_tried_again(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "later" / "events.jsonl"
    await active_share(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_events, store, file)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await store.waiting("event")
        file.parent.mkdir()
        with trio.fail_after(10):
            await until_empty(store, "event")
        nursery.cancel_scope.cancel()
    assert len(lines(file)) == 2


async def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "events.jsonl").symlink_to(target)
    await active_share(store)
    with pytest.raises(OSError, match="symbolic"):
        await trio.to_thread.run_sync(_append, tmp_path / "events.jsonl", await store.waiting("event"))
