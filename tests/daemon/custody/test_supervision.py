"""What dies comes back, what hangs is ended, and nobody has to be asked."""

import json
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from daemon.custody.client import (
    REFUSED_STATUS,
    Connect,
    Custodian,
    CustodianGone,
    CustodianRefused,
    CustodyFailure,
    Spawn,
    open_custodian,
)
from daemon.custody.policy import CustodianPolicy
from daemon.custody.vault import connect_calls
from daemon.custody.watchdog import LOOK_SECONDS, SLACK_SECONDS
from daemon.custody.wire import (
    Begun,
    Call,
    Checkpoint,
    Checkpointed,
    Doctor,
    DoctorReport,
    Done,
    Frame,
    GetStatus,
    NewKekVersion,
    OpenAndCheck,
    Request,
    Status,
    Tick,
    encode,
)
from hsm import CKR
from tests.daemon.custody import scan
from tests.daemon.custody.committee import Committee, begin_signing, finish_signing, signing_request
from tests.daemon.custody.node import ROOT, SOFTHSM, Node, init, make_node
from tests.hsm import fault
from tests.hsm.test_profiles import PROVIDERS

CHECKPOINT = Checkpoint(audit_count=1, audit_head=bytes(32))
CRASH_SECONDS = 10.0
HANG_SECONDS = 20.0
"""Bounds for a machine that does other things too; bench/outages.py measures against the promised 2 s and 10 s."""


def process_of(custodian: Custodian) -> int:
    connection = custodian._connection
    assert connection is not None
    assert connection._process is not None
    return connection._process.pid


async def back(custodian: Custodian, epoch: int, within: float) -> float:
    """Seconds until another process is ready."""
    began = time.monotonic()
    with trio.fail_after(within):
        while custodian.epoch == epoch or not custodian.ready:
            await custodian.wait_change()
    return time.monotonic() - began


async def ready_again(custodian: Custodian, within: float) -> None:
    """A request that needs the HSM is carried out."""
    with trio.fail_after(within):
        while True:
            try:
                await custodian.ask(CHECKPOINT, Checkpointed)
            except (CustodyFailure, CustodianGone):
                await trio.sleep(0.02)  # the outage is the test's subject
            else:
                return


async def in_state(custodian: Custodian, state: str) -> None:
    with trio.fail_after(HANG_SECONDS):
        while custodian.status is None or custodian.status.state != state:
            await custodian.wait_change()


async def failing(custodian: Custodian, request: Request) -> CustodyFailure:
    """Ask until it fails, which it does as soon as the outage is felt."""
    while True:
        try:
            await custodian.ask(request, Frame)
        except CustodyFailure as failure:
            return failure


# ---- Crashes and hangs of the process ----


async def test_a_killed_custodian_is_back_and_its_ceremonies_are_gone(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        request = signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), os.urandom(16))
        begun = await alice.ask(request, Begun)
        epoch = alice.epoch
        os.kill(process_of(alice), signal.SIGKILL)
        with pytest.raises(CustodianGone):
            await alice.ask(Tick(ceremony=begun.ceremony), Frame, epoch=epoch)
        await back(alice, epoch, CRASH_SECONDS)
        with pytest.raises(CustodianGone, match="restarted"):
            await alice.ask(Tick(ceremony=begun.ceremony), Frame, epoch=epoch)
        with pytest.raises(CustodyFailure, match="no such ceremony"):
            await alice.ask(Tick(ceremony=begun.ceremony), Frame)
        assert alice.restarts == 1
        await alice.ask(request, Begun)


async def test_one_that_crashes_again_and_again_is_back_each_time(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for _ in range(6):
            epoch = alice.epoch
            os.kill(process_of(alice), signal.SIGKILL)
            await back(alice, epoch, CRASH_SECONDS)
        assert alice.restarts == 6


async def test_every_caller_learns_of_the_end(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        ends = []

        async def ask() -> None:
            try:
                await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
            except CustodianGone as error:
                ends.append(str(error))

        os.kill(process_of(alice), signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(process_of(alice), signal.SIGKILL)
        assert len(ends) == 20


async def test_a_stopped_custodian_is_ended(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        os.kill(process_of(alice), signal.SIGSTOP)
        took = await back(alice, epoch, HANG_SECONDS)
        assert took < HANG_SECONDS


async def test_a_call_past_its_deadline_ends_the_process(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        os.kill(process_of(alice), signal.SIGSTOP)
        with pytest.raises(CustodianGone, match=r"within 0\.2 s"):
            await alice.ask(GetStatus(), Status, seconds=0.2)
        await back(alice, epoch, CRASH_SECONDS)


async def test_a_cancelled_call_harms_no_other(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for _ in range(20):
            with trio.move_on_after(0.001):
                await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
        assert alice.restarts == 0


async def test_the_custodian_dies_with_its_parent(committee: Committee) -> None:
    program = """
import sys, trio
from pathlib import Path
from daemon.custody.client import Spawn, open_custodian
async def main():
    async with open_custodian(Spawn(config=Path(sys.argv[1]), trusted_config=True)) as custodian:
        print(custodian._connection._process.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    config = committee.nodes["alice"].config
    parent = subprocess.Popen(  # noqa: ASYNC220  (it returns once the child runs)
        [sys.executable, "-c", program, str(config)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    try:
        with trio.fail_after(CRASH_SECONDS):
            await trio.lowlevel.wait_readable(child)
    finally:
        os.close(child)


async def test_what_cannot_start_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = make_node(tmp_path / "alice", "alice-server")
    for broken, message in (
        ("[custodian]\nmodule_path = 1\n", "custodian.module_path"),
        (
            node.config.read_text().replace(
                "arena_mib = 4", "arena_mib = 4\nrecovery = { public_key = '/none', fingerprint = '" + "0" * 64 + "' }"
            ),
            "custodian.recovery",
        ),
    ):
        node.config.write_text(broken)
        with pytest.raises(CustodianRefused):
            async with node.custodian():
                raise AssertionError
        assert message in capfd.readouterr().err
        node.write_config()
    with pytest.raises(CustodianRefused):
        async with open_custodian(Spawn(config=node.config)):  # not --trusted-config, and everything is ours
            raise AssertionError
    assert "must not be able to write" in capfd.readouterr().err


def test_a_custodian_whose_libcrypto_was_in_use_before_its_core_does_not_start(tmp_path: Path) -> None:
    node = make_node(tmp_path / "alice", "alice-server")
    program = "import ssl; from daemon.custody import custodian; custodian.main()"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        where = ["--config", str(node.config), "--fd", str(theirs.fileno()), "--trusted-config"]
        ended = subprocess.run(
            [sys.executable, "-c", program, *where],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=CRASH_SECONDS,
            check=False,
        )
    assert ended.returncode == REFUSED_STATUS
    assert "libcrypto was in use before our core was loaded" in ended.stderr


async def test_a_custodian_gives_up_what_it_does_not_need(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        process = Path(f"/proc/{process_of(custodians['alice'])}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["NoNewPrivs"] == "1"
        assert int(status["Umask"], 8) == 0o077
        limits = (process / "limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                (process / "mem").open("rb")


@scan.needs_root
async def test_a_custodians_only_socket_is_tssds(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        process = Path(f"/proc/{process_of(custodians['alice'])}")
        command = [*(scan.AS_ROOT or []), "find", str(process / "fd"), "-type", "l", "-printf", "%l\n"]
        listed = await trio.run_process(command, capture_stdout=True)
        sockets = [link for link in listed.stdout.decode().splitlines() if link.startswith("socket:")]
        assert len(sockets) == 1
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
            text = (process / "net" / table).read_text() if (process / "net" / table).exists() else ""
            assert not any(sockets[0][8:-1] in line.split() for line in text.splitlines())


SHOWS_ITSELF = """
import ctypes, json, sys
from daemon.custody import custodian
PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS = 3, 39
def show(_):
    libc = ctypes.CDLL(None)
    print(json.dumps({
        "dumpable": libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
        "no new privileges": libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
    }), flush=True)
custodian.Connection.serve = show
custodian.main(sys.argv[1:])
"""


def test_a_custodian_that_serves_is_not_dumpable(committee: Committee) -> None:
    """As it says itself: to root, who reads everything, it looks no different from outside."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = ["--config", str(committee.nodes["alice"].config), "--trusted-config", "--fd", str(theirs.fileno())]
        told = subprocess.run(
            [sys.executable, "-c", SHOWS_ITSELF, *arguments],
            stdout=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            check=True,
            cwd=ROOT,
        ).stdout
    assert json.loads(told) == {"dumpable": 0, "no new privileges": 1}


# ---- The HSM ----


def behind_faults(node: Node, directory: Path) -> fault.Control:
    """Put the module that misbehaves on demand before a node's token."""
    control = fault.Control(directory / "control")
    module = fault.build(directory)
    node.settings |= {
        "module_path": f'"{module}"',
        "module_environment": f'{{ SOFTHSM2_CONF = "{node.token}/softhsm2.conf", TSSD_FAULT_TARGET = "{SOFTHSM}", '
        f'TSSD_FAULT_CONTROL = "{control.path}" }}',
        "hsm_call_seconds": "2",
    }
    node.write_config()
    return control


@pytest.fixture
def faulty(committee: Committee, tmp_path: Path) -> tuple[Node, fault.Control]:
    """Alice's node behind the module that misbehaves on demand."""
    node = committee.nodes["alice"]
    return node, behind_faults(node, tmp_path)


@pytest.mark.parametrize("profile", ["cloudhsm", "luna", "nshield"])
async def test_the_policys_profile_is_how_the_token_is_called(tmp_path: Path, profile: str) -> None:
    """On a token that behaves as that provider says it does; tests/hsm/test_profiles.py has what follows from it."""
    node = make_node(tmp_path / "alice", "alice-server", settings={"profile": f'"{profile}"'})
    behind_faults(node, tmp_path).set(**PROVIDERS[profile])
    await init(node)
    async with node.custodian() as custodian:
        assert (await custodian.ask(NewKekVersion(), Status)).kek_version == 2
        await custodian.ask(CHECKPOINT, Checkpointed)


@pytest.mark.parametrize("function", ["C_Decrypt", "C_UnwrapKey", "C_Sign"])
async def test_a_hanging_module_ends_the_process(
    committee: Committee, faulty: tuple[Node, fault.Control], function: str
) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        control.fault(function, fault.Action.HANG)
        began = time.monotonic()
        asked = CHECKPOINT if function == "C_Sign" else OpenAndCheck(row=committee.shares["alice"].row)
        ended = trio.Event()

        async def ask() -> None:
            with pytest.raises(CustodianGone):
                await alice.ask(asked, Frame)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not ended.is_set():
                # Other calls go on meanwhile.
                if alice.epoch == epoch and alice.status is not None:
                    try:
                        assert (await alice.ask(GetStatus(), Status)).state == "ready"
                    except CustodianGone:
                        break
                await trio.sleep(0.1)
            control.clear()
        await back(alice, epoch, HANG_SECONDS)
        assert time.monotonic() - began < HANG_SECONDS
        await alice.ask(asked, Frame)


async def test_rows_that_are_opened_keep_no_other_call_waiting(
    committee: Committee, faulty: tuple[Node, fault.Control]
) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        control.fault("C_Decrypt", fault.Action.HANG, times=0)
        before = control.calls("C_Decrypt")

        async def open_row() -> None:
            with pytest.raises(CustodianGone):
                await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)

        async with trio.open_nursery() as nursery:
            for _ in range(8):  # more than there are threads
                nursery.start_soon(open_row)
            with trio.fail_after(HANG_SECONDS):
                while control.calls("C_Decrypt") == before:  # noqa: ASYNC110  (it is another process that calls)
                    await trio.sleep(0.02)
            await alice.ask(CHECKPOINT, Checkpointed, epoch=epoch)
            os.kill(process_of(alice), signal.SIGKILL)


@pytest.mark.parametrize("function", ["C_Initialize", "C_OpenSession", "C_Login"])
async def test_a_hang_while_connecting_is_ended_too(
    committee: Committee, faulty: tuple[Node, fault.Control], function: str
) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        control.fault(function, fault.Action.HANG).answer("C_Decrypt", CKR.DEVICE_ERROR)
        failure = await failing(alice, OpenAndCheck(row=committee.shares["alice"].row))
        assert failure.kind == "token"
        await back(alice, epoch, HANG_SECONDS)
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)


async def test_a_crashing_module_takes_nothing_else_down(
    committee: Committee, faulty: tuple[Node, fault.Control]
) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch = alice.epoch
        control.fault("C_Decrypt", fault.Action.CRASH)
        with pytest.raises(CustodianGone):
            await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
        await back(alice, epoch, CRASH_SECONDS)
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)


async def test_lost_sessions_are_renewed_unseen(committee: Committee, faulty: tuple[Node, fault.Control]) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for _ in range(3):
            control.expire_sessions()
            await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
        assert control.get("expired") >= 3
        assert alice.restarts == 0


async def test_a_device_error_is_not_the_shares_fault(committee: Committee, faulty: tuple[Node, fault.Control]) -> None:
    _, control = faulty
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for rv in (CKR.DEVICE_ERROR, CKR.GENERAL_ERROR, CKR.TOKEN_NOT_PRESENT, CKR.ENCRYPTED_DATA_INVALID):
            control.answer("C_Decrypt", rv, times=0)
            with pytest.raises(CustodyFailure) as caught:
                await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
            assert caught.value.kind == "token", rv
            control.clear()
            await ready_again(alice, CRASH_SECONDS)
            await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)


async def test_a_wrong_pin_is_tried_once_over_any_number_of_restarts(faulty: tuple[Node, fault.Control]) -> None:
    node, control = faulty
    right = node.pin
    pin = node.token / "pin"
    pin.unlink()
    pin.write_text("wrong")
    pin.chmod(0o400)
    control.set(pin_tries=3)
    how = Spawn(config=node.config, trusted_config=True)
    async with open_custodian(how) as alice:
        await in_state(alice, "credential")
        assert alice.status is not None
        assert "wrong" not in alice.status.reason
        with pytest.raises(CustodyFailure) as caught:
            await alice.ask(CHECKPOINT, Checkpointed)
        assert caught.value.kind == "credential"
        for _ in range(3):
            epoch = alice.epoch
            os.kill(process_of(alice), signal.SIGKILL)
            with trio.fail_after(CRASH_SECONDS):
                while alice.epoch == epoch:
                    await alice.wait_change()
            await in_state(alice, "credential")
        assert control.get("wrong_pins") == 1
        pin.unlink()
        pin.write_text(right)
        pin.chmod(0o400)
        with trio.fail_after(5):
            await alice.wait_ready()
    assert control.get("wrong_pins") <= 1


@pytest.mark.parametrize(("mode", "state"), [(0o440, "credential"), (0o404, "credential"), (0o500, "credential")])
async def test_a_pin_that_others_can_read_is_refused(committee: Committee, mode: int, state: str) -> None:
    node = committee.nodes["alice"]
    (node.token / "pin").chmod(mode)
    async with open_custodian(Spawn(config=node.config, trusted_config=True)) as alice:
        await in_state(alice, state)
        (node.token / "pin").chmod(0o400)
        with trio.fail_after(5):
            await alice.wait_ready()


async def test_the_pin_can_be_a_credential_of_systemds(
    committee: Committee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is made at each start; whether it is another PIN shows at what it was copied from."""
    node = committee.nodes["alice"]
    source, copies = tmp_path / "source", tmp_path / "credentials"
    node.settings |= {"pin": f'{{ source = "credential", name = "hsm-pin", file = "{source}" }}'}
    node.write_config()
    how = Spawn(config=node.config, trusted_config=True)
    async with open_custodian(how) as alice:
        await in_state(alice, "credential")
        assert alice.status is not None
        assert "no systemd credential hsm-pin" in alice.status.reason

    def given(pin: str) -> None:
        copies.mkdir(exist_ok=True)
        (copies / "hsm-pin").unlink(missing_ok=True)
        (copies / "hsm-pin").write_text(pin)
        (copies / "hsm-pin").chmod(0o400)

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))
    source.write_text("wrong")
    for said in ("CKR_PIN_INCORRECT", "latched"):
        given("wrong")
        async with open_custodian(how) as alice:
            await in_state(alice, "credential")
            assert alice.status is not None
            assert said in alice.status.reason
    source.write_text(node.pin)
    given(node.pin)
    async with open_custodian(how) as alice:
        with trio.fail_after(HANG_SECONDS):
            await alice.wait_ready()
        await alice.ask(CHECKPOINT, Checkpointed)
        epoch = alice.epoch
        os.kill(process_of(alice), signal.SIGKILL)
        await back(alice, epoch, CRASH_SECONDS)


OPERATOR = """
import sys, trio
from pathlib import Path
from daemon.custody.client import Spawn, open_custodian
from daemon.custody.wire import NewestPins, Pins
async def main():
    async with open_custodian(Spawn(config=Path(sys.argv[1]), operator=True)) as operator:
        print("list", (await operator.ask(NewestPins(), Pins, seconds=60)).number, flush=True)
trio.run(main)
"""


def at_a_terminal(program: str, node: Node, directory: Path) -> bytes:
    """Run it on a pseudo-terminal, type the PIN when it is asked for; what was shown."""
    (directory / "program.py").write_text(program)
    command = f"{sys.executable} {directory}/program.py {node.config}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("CREDENTIALS_DIRECTORY", None)
    with subprocess.Popen(
        ["script", "-qec", command, "/dev/null"],  # noqa: S607  (the platform's)
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        shown = b""
        while b"PIN of HSM token tssd: " not in shown:
            shown += os.read(terminal.stdout.fileno(), 4096)
        terminal.stdin.write(node.pin.encode() + b"\n")
        terminal.stdin.flush()
        return shown + terminal.stdout.read()


def test_an_operator_types_the_pin_that_is_systemds_credential(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"pin": '{ source = "credential" }'}
    node.write_config()
    shown = at_a_terminal(OPERATOR, node, tmp_path)
    assert b"\nlist 2" in shown
    assert node.pin.encode() not in shown


async def test_without_a_terminal_a_typed_pin_is_waited_for(committee: Committee) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"pin": '{ source = "prompt" }'}
    node.write_config()
    async with open_custodian(Spawn(config=node.config, trusted_config=True)) as alice:
        await in_state(alice, "locked")
        with pytest.raises(CustodyFailure) as caught:
            await alice.ask(CHECKPOINT, Checkpointed)
        assert caught.value.kind == "locked"
        assert "terminal" in caught.value.message


TYPED = """
import os, signal, sys, trio
from pathlib import Path
from daemon.custody.client import Spawn, open_custodian
async def main():
    async with open_custodian(Spawn(config=Path(sys.argv[1]), trusted_config=True)) as custodian:
        await custodian.wait_ready()
        print("ready", flush=True)
        os.kill(custodian._connection._process.pid, signal.SIGKILL)
        while custodian.epoch == 1 or custodian.status is None or custodian.status.state == "starting":
            await custodian.wait_change()
        print("after a restart:", custodian.status.state, flush=True)
trio.run(main)
"""


def test_a_typed_pin_lives_as_long_as_its_process(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"pin": '{ source = "prompt" }'}
    node.write_config()
    shown = at_a_terminal(TYPED, node, tmp_path)
    assert b"\nready" in shown
    assert b"after a restart: locked" in shown
    assert node.pin.encode() not in shown


async def test_a_vanished_token_is_back_within_two_seconds_of_its_return(committee: Committee) -> None:
    node = committee.nodes["alice"]
    tokens = node.token / "tokens"
    async with committee.up("alice", "bob") as custodians:
        alice = custodians["alice"]
        table = await begin_signing(committee, custodians, committee.shares, bytes(32))
        await table.until("result")
        for _ in range(3):
            tokens.rename(node.token / "away")
            failure = await failing(alice, OpenAndCheck(row=committee.shares["alice"].row))
            assert failure.kind == "token"
            await in_state(alice, "token")
            (node.token / "away").rename(tokens)
            await ready_again(alice, CRASH_SECONDS)
            await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
        # What was under way when the token went is finished now.
        assert alice.restarts == 0
        await finish_signing(table)


async def test_an_empty_token_in_the_place_of_ours_loses_nothing(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    other = make_node(tmp_path / "other", "alice-server")
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        (node.token / "tokens").rename(node.token / "away")
        (other.token / "tokens").rename(node.token / "tokens")
        failure = await failing(alice, OpenAndCheck(row=committee.shares["alice"].row))
        assert failure.kind in {"token", "credential"}
        (node.token / "tokens").rename(other.token / "tokens")
        (node.token / "away").rename(node.token / "tokens")
        # The stranger refused our PIN, which is therefore latched until somebody looks at it.
        os.utime(node.token / "pin")
        await ready_again(alice, 5)
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)


async def test_the_doctor_examines_the_token(committee: Committee) -> None:
    node = committee.nodes["alice"]
    async with open_custodian(Spawn(config=node.config, trusted_config=True, operator=True)) as operator:
        report = await operator.ask(Doctor(), DoctorReport, seconds=120)
        with pytest.raises(CustodyFailure, match="of their own"):
            await operator.ask(Doctor(), DoctorReport)
    assert report.tier == "A"
    assert len(report.checks) >= 40
    assert "failed" not in {check.outcome for check in report.checks}


# ---- The watchdog ----

HANGS_WITH_THE_INTERPRETER = """
import ctypes, sys, time
from daemon.custody.watchdog import Watchdog
watchdog = Watchdog(0.5)
watchdog.start()
with watchdog.watching("C_Test"):
    (ctypes.PyDLL if sys.argv[1] == "held" else ctypes.CDLL)(None).pause()
"""


def test_every_hang_that_the_policy_allows_ends_in_time_for_another_process() -> None:
    """Within 10 s of its beginning, of which a fresh process may take 2 (bench/outages.py measures both)."""
    (bound,) = (each.le for each in CustodianPolicy.model_fields["hsm_call_seconds"].metadata if hasattr(each, "le"))
    for seconds in range(1, bound + 1):
        for hang in (
            seconds + LOOK_SECONDS,
            seconds + SLACK_SECONDS,  # where the module holds the interpreter
            seconds * connect_calls(seconds) + LOOK_SECONDS,
        ):
            assert hang <= 8


@pytest.mark.parametrize("interpreter", ["held", "free"])
def test_a_hang_ends_the_process_even_where_it_holds_the_interpreter(interpreter: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS_WITH_THE_INTERPRETER, interpreter],
        capture_output=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode not in {0, -signal.SIGTERM}
    assert time.monotonic() - began < 8
    assert (b"C_Test hangs" in done.stderr) == (interpreter == "free")


# ---- systemd's socket ----

ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-I", "-m", "daemon.custody.custodian", *sys.argv[2:]])
"""


@asynccontextmanager
async def activated(node: Node, directory: Path) -> AsyncIterator[Path]:
    """What systemd does with a unit of ours: listen, start on the first connection, start again after an end."""
    path = directory / "custodian.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        stop = threading.Event()
        running: list[subprocess.Popen[bytes]] = []

        def supervise() -> None:
            while not stop.is_set():
                arguments = [str(listener.fileno()), "--config", str(node.config), "--trusted-config"]
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-c", ACTIVATED, *arguments], pass_fds=(listener.fileno(),), cwd=ROOT
                    )
                )
                running[-1].wait()

        thread = threading.Thread(target=supervise)
        thread.start()
        try:
            yield path
        finally:
            stop.set()
            running[-1].kill()
            thread.join()


async def test_systemds_socket_takes_one_connection_of_tssds_user(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"peer_uid": str(os.geteuid())}
    node.write_config()
    async with activated(node, tmp_path) as path:
        assert stat.S_ISSOCK(path.stat().st_mode)
        for _ in range(2):
            async with open_custodian(Connect(socket=path)) as custodian:
                with trio.fail_after(10):
                    await custodian.wait_ready()
                await custodian.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)


async def test_a_second_connection_at_the_same_time_gets_no_answer(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"peer_uid": str(os.geteuid())}
    node.write_config()
    row = committee.shares["alice"].row
    async with activated(node, tmp_path) as path, open_custodian(Connect(socket=path)) as custodian:
        with trio.fail_after(HANG_SECONDS):
            await custodian.wait_ready()
        second = await trio.open_unix_socket(path)
        async with second:
            await second.send_all(encode(Call(number=1, now_ms=0, request=GetStatus())))
            heard: list[bytes] = []

            async def hear() -> None:
                heard.append(await second.receive_some(1))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                # Time enough for an answer: the custodian carries these out, one after the other.
                for _ in range(100):
                    await custodian.ask(OpenAndCheck(row=row), Done)
                assert heard == []
                nursery.cancel_scope.cancel()
        await custodian.ask(OpenAndCheck(row=row), Done)
        assert custodian.restarts == 0
        assert custodian.epoch == 1


async def test_systemds_socket_refuses_another_user(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"peer_uid": str(os.geteuid() + 1)}
    node.write_config()
    async with activated(node, tmp_path) as path:
        for _ in range(3):
            stream = await trio.open_unix_socket(path)
            async with stream:
                with trio.fail_after(10):
                    assert await stream.receive_some(1) == b""


# ---- Frames that are none ----


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 0),
        struct.pack(">I", 2**31),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 1) + b"\x80",
        struct.pack(">I", 64) + b"\x91" * 64,
        random.Random(1).randbytes(4096),
    ],
    ids=lambda sent: sent[:8].hex(),
)
async def test_nonsense_ends_the_connection_and_the_process(committee: Committee, sent: bytes) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        epoch, connection = alice.epoch, alice._connection
        assert connection is not None
        process = connection._process
        await connection._stream.send_all(sent)
        await back(alice, epoch, CRASH_SECONDS)
        assert process is not None
        assert process.returncode == 0
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
