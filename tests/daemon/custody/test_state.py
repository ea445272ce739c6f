"""The chain survives what a process, a disk and a thief can do to it, or refuses."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.custody import state as module
from daemon.custody.state import RateExceeded, RecoveryKey, Revoked, State, StateRefused, Use

MANY = {"per_minute": 10**6, "per_hour": 10**6}


def signing(share_id: str = "share-1", at: int | None = None) -> Use:
    return Use(
        kind="sign",
        at=int(time.time()) if at is None else at,
        session=bytes(16),
        party_id="alice-server",
        share_id=share_id,
        digest=bytes(32),
        plain=False,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def filled(directory: Path) -> Path:
    with State(directory) as state:
        state.use(signing(), **MANY)
        state.revoke("share-2")
        state.spend("prepared-1")
        state.see_pins(7)
        state.append(RecoveryKey(fingerprint=b"\1" * 32))
    return directory


def test_everything_is_there_after_a_restart(filled: Path) -> None:
    with State(filled) as state:
        assert state.count == 5
        assert state.is_revoked("share-2")
        assert not state.is_revoked("share-1")
        assert state.is_spent("prepared-1")
        assert state.seen_pins() == 7
        assert state.recovery == b"\1" * 32
        with pytest.raises(Revoked):
            state.use(signing("share-2"), **MANY)
        with pytest.raises(Revoked):
            state.spend("prepared-1")


def test_an_empty_chain_has_a_zero_head(directory: Path) -> None:
    with State(directory) as state:
        assert state.position() == (0, bytes(32))


def test_one_process_at_a_time(directory: Path) -> None:
    with State(directory), pytest.raises(StateRefused, match="in use"):
        State(directory)


def test_a_directory_open_to_others_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o750)
    with pytest.raises(StateRefused, match="chmod 0700"):
        State(directory)


def test_a_link_in_place_of_the_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "real")
    with pytest.raises(StateRefused):
        State(directory)


def test_every_cut_of_the_last_event_loses_that_event_alone(filled: Path) -> None:
    chain = filled / "chain"
    whole = chain.read_bytes()
    with State(filled) as state:
        heads = list(state._heads)
    ends = [end for end, _, _ in module._records(whole)]
    last = ends[-2]
    for cut in range(last, len(whole)):
        chain.write_bytes(whole[:cut])
        with State(filled) as state:
            assert state.position() == (4, heads[4])
            state.revoke("share-3")
        with State(filled) as state:
            assert state.count == 5
            assert state.is_revoked("share-3")


def test_zeros_at_the_end_are_an_interrupted_write(filled: Path) -> None:
    chain = filled / "chain"
    whole = chain.read_bytes()
    ends = [end for end, _, _ in module._records(whole)]
    for written in range(ends[-2], ends[-1] - 8):
        chain.write_bytes(whole[:written] + bytes(len(whole) - written))
        with State(filled) as state:
            assert state.count == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_byte_is_refused(filled: Path, data: st.DataObject) -> None:
    chain = filled / "chain"
    whole = chain.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    chain.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
    try:
        with pytest.raises(StateRefused, match="damaged"):
            State(filled).close()
    finally:
        chain.write_bytes(whole)


def test_an_event_taken_out_is_refused(filled: Path) -> None:
    chain = filled / "chain"
    whole = chain.read_bytes()
    ends = [end for end, _, _ in module._records(whole)]
    chain.write_bytes(whole[: ends[1]] + whole[ends[2] :])
    with pytest.raises(StateRefused, match="does not verify"):
        State(filled)


@pytest.mark.parametrize("older", ["shorter", "missing", "other"])
def test_a_directory_put_back_is_refused_against_a_checkpoint(filled: Path, tmp_path: Path, older: str) -> None:
    shutil.copytree(filled, tmp_path / "copy")
    with State(filled) as state:
        state.use(signing(), **MANY)
        count, head = state.position()
        state.compare(count, head)
        state.compare(0, bytes(32))
    shutil.rmtree(filled)
    if older != "missing":
        shutil.copytree(tmp_path / "copy", filled)
    with State(filled) as state:
        if older == "other":
            state.use(signing("share-9"), **MANY)
            state.use(signing("share-9"), **MANY)
        with pytest.raises(StateRefused, match="checkpoint"):
            state.compare(count, head)
        with pytest.raises(StateRefused, match="checkpoint"):
            state.use(signing(), **MANY)
        with pytest.raises(StateRefused, match="checkpoint"):
            state.append(RecoveryKey(fingerprint=b""))


def test_rewriting_keeps_everything(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REWRITE_EVENTS", 8)
    with State(filled) as state:
        before = state.position()
        for _ in range(30):
            state.use(signing(), **MANY)
        position = state.position()
        state.compare(*position)
        state.compare(*before)  # older than the file: only the count can be held against it
    assert len(list(module._records((filled / "chain").read_bytes()))) < 10
    with State(filled) as state:
        assert state.position() == position
        assert state.is_revoked("share-2")
        assert state.is_spent("prepared-1")
        assert state.seen_pins() == 7
        with pytest.raises(RateExceeded):
            state.use(signing(), per_minute=31, per_hour=10**6)


def test_the_rate_outlives_a_restart(directory: Path) -> None:
    with State(directory) as state:
        for _ in range(3):
            state.use(signing(), per_minute=3, per_hour=10)
        with pytest.raises(RateExceeded, match="minute"):
            state.use(signing(), per_minute=3, per_hour=10)
        assert state.count == 3
    with State(directory) as state:
        with pytest.raises(RateExceeded, match="minute"):
            state.use(signing(), per_minute=3, per_hour=10)
        with pytest.raises(RateExceeded, match="hour"):
            state.use(signing(), per_minute=30, per_hour=3)


def test_signings_of_long_ago_do_not_count_and_those_of_the_future_do(directory: Path) -> None:
    now = int(time.time())
    with State(directory) as state:
        state.use(signing(at=now - 7200), **MANY)
        state.use(signing(at=now - 120), **MANY)
        state.use(signing(at=now + 10**6), **MANY)
    with State(directory) as state:
        state.use(signing(), per_minute=2, per_hour=3)
        with pytest.raises(RateExceeded):
            state.use(signing(), per_minute=9, per_hour=3)


def test_a_full_disk_leaves_the_chain_whole(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with State(directory) as state:
        state.revoke("share-1")
        real = os.write

        def half(descriptor: int, data: bytes) -> int:
            if descriptor != state._file:
                return real(descriptor, data)
            if len(data) > 20:
                return real(descriptor, bytes(data[:20]))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(StateRefused, match="No space"):
            state.revoke("share-2-whose-name-is-longer-than-twenty-bytes")
        monkeypatch.undo()
        state.revoke("share-3")
    with State(directory) as state:
        assert state.count == 2
        assert state.is_revoked("share-3")


def test_after_a_failed_sync_nothing_more_is_believed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with State(directory) as state:
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StateRefused, match="unknown"):
            state.revoke("share-1")
        monkeypatch.undo()
        with pytest.raises(StateRefused, match="unknown"):
            state.revoke("share-2")


WRITER = """
import os, sys, time
from pathlib import Path
from daemon.custody import state
state.REWRITE_EVENTS = 7
with state.State(Path(sys.argv[1])) as chain:
    while True:
        chain.revoke(f"share-{chain.count}")
        os.write(1, b"%d\\n" % chain.count)
"""


def test_a_killed_writer_loses_nothing_it_answered_for(directory: Path) -> None:
    answered = 0
    for round_ in range(40):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert writer.stdout is not None
        for _ in range(1 + round_ % 9):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.stdout.close()
        writer.wait()
        with State(directory) as state:
            whole = [line for line in rest.split(b"\n")[:-1] if line]
            answered = max([answered, *(int(line) for line in whole)])
            assert state.count >= answered
            answered = state.count
            assert all(state.is_revoked(f"share-{i}") for i in range(state.count))
