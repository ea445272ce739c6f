"""The chain survives what a process, a disk and a thief can do to it, or refuses."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.custody import state as module
from daemon.custody.state import RateExceeded, RecoveryKey, Revoked, State, StateRefused, Use
from hsm import CKR, CredentialRefused, Pin, PinLatch
from tests.daemon.custody.chain_vectors import FOLDER, FORMATS, KEY, SESSION

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
        assert state.recall().pins_number == 7
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
        assert state.recall().pins_number == 7
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


def test_the_identity_key_stays_unless_an_operator_names_another(directory: Path) -> None:
    first, second, third = (bytes([2, place]) + bytes(31) for place in range(3))
    with State(directory) as state:
        state.admit_identity(first)
        state.admit_identity(first)
        assert state.count == 1
        with pytest.raises(StateRefused, match=second.hex()):
            state.admit_identity(second)
        module.name_identity(directory, second)
        with pytest.raises(StateRefused, match=third.hex()):
            state.admit_identity(third)
        state.admit_identity(second)
    with State(directory) as state:
        assert state.count == 2
        state.admit_identity(second)
        # Whoever else reads it, while it is ours.
        assert module.read_peering(directory) == state.recall() == module.Peering(0, (first, second))
        state._rewrite()
        assert module.read_peering(directory) == state.recall()
        with pytest.raises(StateRefused, match="bring the right token back"):
            state.admit_identity(first)
        (directory / "identity").write_text("nonsense")
        with pytest.raises(StateRefused, match="bring the right token back"):
            state.admit_identity(first)


def test_the_newest_kek_version_stays_until_another_token_is_named(directory: Path) -> None:
    with State(directory) as state:
        state.admit(b"\2" * 33, (1,))
        state.admit(b"\2" * 33, (1,))
        state.admit(b"\2" * 33, (1, 2))
        state.admit(b"\2" * 33, (2,))  # the older one was taken away, and nothing rests on it
        assert state.count == 3
    with State(directory) as state:
        for versions in ((), (1,), (1, 3)):
            with pytest.raises(StateRefused, match="KEK version 2 is gone from the token"):
                state.admit(b"\2" * 33, versions)
        assert (state.count, state.highest_kek()) == (3, 2)
        state._rewrite()
    with State(directory) as state:
        with pytest.raises(StateRefused, match="KEK version 2 is gone from the token"):
            state.admit(b"\2" * 33, (1,))
        # A token of its own may begin with a KEK of its own, and still no share of the earlier one is to blame.
        module.name_identity(directory, b"\3" * 33)
        state.admit(b"\3" * 33, (1,))
        assert state.highest_kek() == 2
    with State(directory) as state:
        state.admit(b"\3" * 33, (1,))
        state.admit(b"\3" * 33, (1, 2))
        with pytest.raises(StateRefused, match="KEK version 2 is gone from the token"):
            state.admit(b"\3" * 33, (1,))


def test_generations_only_grow(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REWRITE_EVENTS", 3)
    with State(directory) as state:
        for generation in (0, 1, 3, 2, 3):
            state.succeed("alice-server", b"key", generation)
        assert state.count == 2
        state.succeed("alice-server", b"other", 1)
        state.admit_identity(b"\2" * 33)
    with State(directory) as state:
        assert len(list(module._records((directory / "chain").read_bytes()))) == 2  # begun anew after three
        assert state.newest_generation("alice-server", b"key") == 3
        assert state.newest_generation("alice-server", b"other") == 1
        assert state.newest_generation("bob-server", b"key") == 0
        with pytest.raises(StateRefused, match="identity key"):
            state.admit_identity(b"\3" * 33)


def test_a_chain_of_before_identities_and_generations_opens(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    base = {name: getattr(module._EMPTY, name) for name in module._EMPTY.__struct_fields__}
    del base["identity"], base["generations"]
    value = msgspec.msgpack.encode(base)
    (directory / "chain").write_bytes(module._record(value, module._based(value)))
    with State(directory) as state:
        assert state.count == 0
        state.admit_identity(b"\2" * 33)


def recorded(version: int) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((FOLDER / f"v{version}/every-event.json").read_text(encoding="utf-8"))
    return vector


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("form", ["chain", "begun_anew"])
def test_a_recorded_chain_opens(directory: Path, form: str, version: int) -> None:
    vector = recorded(version)
    directory.mkdir(mode=0o700)
    (directory / "chain").write_bytes(bytes.fromhex(vector[form]))
    with State(directory) as state:
        assert (state.count, state.head.hex()) == (vector["count"], vector["head"])
        # What it remembers is not done again: the same events change nothing, but for a use and the recovery key.
        state.admit_identity(b"\3" + bytes(32))
        state.see_pins(7)
        state.confirm(SESSION, "alice-server")
        state.succeed("alice-server", KEY, 3)
        state.revoke("share-2")
        assert state.count == vector["count"]
        with pytest.raises(Revoked):
            state.spend("prepared-1")
        with pytest.raises(StateRefused):
            state.admit_identity(b"\2" + bytes(32))
        if version == 1:
            assert state.highest_kek() == 0
            state.admit_kek((1,))  # what is there counts from here on
        else:
            with pytest.raises(StateRefused):
                state.admit_kek((1,))
            state.admit_kek((1, 2))
            assert state.count == vector["count"]
        assert state.recovery == hashlib.sha256(b"recovery").digest()
        assert state.newest_generation("alice-server", KEY) == 3


@pytest.mark.parametrize("version", FORMATS)
def test_a_recorded_chain_verifies_by_the_written_format_alone(version: int) -> None:
    vector = recorded(version)
    rest, head, kinds = bytes.fromhex(vector["chain"]), bytes(32), []
    while rest:
        length = int.from_bytes(rest[:4], "big")
        assert int.from_bytes(rest[4:8], "big") == length ^ 0xFFFFFFFF
        value, digest, rest = rest[8 : 8 + length], rest[8 + length : 40 + length], rest[40 + length :]
        said = msgspec.msgpack.decode(value)
        if "is" in said:
            head = hashlib.sha256(b"tssd/1/chain\0" + head + value).digest()
            kinds.append(said["is"])
        else:
            assert said["format"] == version
            assert hashlib.sha256(b"tssd/1/chain-base\0" + value).digest() == digest
            continue
        assert digest == head
    assert (len(kinds), head.hex()) == (vector["count"], vector["head"])
    later = {"KekVersion"} if version == 1 else set()
    assert set(kinds) == {kind.__name__ for kind in module.Event.__subclasses__()} - later


# ---- Killed at any point ----

Hook = Callable[..., Any]
CALLS = ("open", "write", "fdatasync", "fsync", "ftruncate", "replace", "unlink")
"""Everything by which state reaches the disk."""


def killed(point: int, work: Callable[[], None]) -> bool:
    """Do it in a process that is killed at its point-th step towards the disk; whether it came so far.

    A step is before each call, and in the middle of each write.
    """
    child = os.fork()
    if child == 0:
        steps = iter(range(point + 1))

        def step() -> None:
            if next(steps) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        def hooked(real: Hook, name: str) -> Hook:
            def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401  (whatever the call takes and gives)
                step()
                if name == "write":
                    half = len(arguments[1]) // 2
                    real(arguments[0], arguments[1][:half])
                    step()
                    return half + real(arguments[0], arguments[1][half:])
                return real(*arguments, **keywords)

            return call

        try:
            for name in CALLS:
                setattr(os, name, hooked(getattr(os, name), name))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def every_point(work: Callable[[], None], check: Callable[[int], None], least: int) -> None:
    """Kill it at each point in turn, and check what is left; at least so many there are."""
    point = 0
    while killed(point, work):
        check(point)
        point += 1
    assert point >= least


def test_a_kill_at_any_point_loses_nothing_that_was_answered(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counter, head, tombstones, spent, confirmed, pins' number, identity, KEK version, generation, rate."""
    monkeypatch.setattr(module, "REWRITE_EVENTS", 4)
    answered = tmp_path / "answered"
    steps: list[tuple[Callable[[State], object], Callable[[State], bool]]] = [
        (lambda s: s.revoke("share-2"), lambda s: s.is_revoked("share-2")),
        (lambda s: s.spend("prepared-1"), lambda s: s.is_spent("prepared-1")),
        (lambda s: s.confirm(bytes(16), "alice-server"), lambda s: s.is_confirmed(bytes(16), "alice-server")),
        (lambda s: s.see_pins(7), lambda s: s.recall().pins_number == 7),
        (lambda s: s.admit_identity(b"\2" * 33), lambda s: s.recall().identity == b"\2" * 33),
        (lambda s: s.admit_kek((1, 2)), lambda s: s.highest_kek() == 2),
        (lambda s: s.succeed("a-b", b"key", 1), lambda s: s.newest_generation("a-b", b"key") == 1),
        (lambda s: s.use(signing(), **MANY), lambda s: len(s._signings) == 1),
        (lambda s: s.append(RecoveryKey(fingerprint=b"\1" * 32)), lambda s: s.recovery == b"\1" * 32),
        (lambda s: s.revoke("share-3"), lambda s: s.is_revoked("share-3")),
    ]

    def work() -> None:
        with State(directory) as state, answered.open("wb", buffering=0) as told:
            for act, _ in steps:
                act(state)
                told.write(state.head)

    def check(point: int) -> None:
        heads = answered.read_bytes() if answered.exists() else b""
        done = len(heads) // 32
        with State(directory) as state:
            assert done <= state.count <= done + 1, point
            assert [holds(state) for _, holds in steps] == [place < state.count for place in range(len(steps))], point
            if done:
                state.compare(done, heads[-32:])
            state.revoke("share-9")
            assert state.is_revoked("share-9")
        shutil.rmtree(directory)
        answered.unlink(missing_ok=True)

    every_point(work, check, 40)


def test_a_kill_at_any_point_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    module.replace_file(path, b"before" * 10)

    def check(point: int) -> None:
        assert path.read_bytes() in {b"before" * 10, b"after" * 10}, point
        module.replace_file(path, b"before" * 10)

    every_point(lambda: module.replace_file(path, b"after" * 10), check, 6)


def test_a_kill_at_any_point_gives_no_pin_a_second_try(tmp_path: Path) -> None:
    """What the token is asked is counted where the token would count: outside the process."""
    state, tries = tmp_path / "state", tmp_path / "tries"
    state.mkdir(mode=0o700)
    wrong = tmp_path / "pin"
    wrong.write_text("wrong")
    wrong.chmod(0o400)

    class Asked(Pin):
        def login(self, module: Any, session: int) -> int:  # noqa: ANN401, ARG002  (as the one it stands for)
            with tries.open("ab", buffering=0) as file:
                file.write(b".")
            return CKR.PIN_INCORRECT

    def try_once() -> None:
        with suppress(CredentialRefused):
            PinLatch(state).login(None, 0, Asked.from_file(wrong), "serial")

    def check(point: int) -> None:
        for _ in range(3):
            try_once()
        assert len(tries.read_bytes() if tries.exists() else b"") <= 1, point
        shutil.rmtree(state)
        state.mkdir(mode=0o700)
        tries.unlink(missing_ok=True)

    every_point(try_once, check, 10)


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
    for round_ in range(12):
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
