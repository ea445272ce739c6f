"""One party of the network: a directory with an HSM token, a configuration and a real `tssd` process over it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx
import trio

from daemon.custody.client import CustodianGone, CustodianRefused, CustodyFailure, Spawn, open_custodian
from daemon.custody.wire import EditPins, InitToken, Pins, Status
from daemon.network.peers import store_pins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from daemon.custody.client import Custodian

INIT_TOKEN: Final = Path(__file__).resolve().parent.parent / "softhsm" / "init-token.sh"
MODULES: Final = tuple(Path(place) / "softhsm/libsofthsm2.so" for place in ("/usr/lib", "/usr/lib64", "/usr/local/lib"))
ARENA_MIB: Final = 32
"""What a custodian asks for by default; less where the limit on locked memory is lower."""
MEBIBYTE: Final = 1024 * 1024
CEREMONIES_PER_MIB: Final = 2
STDERR: Final = 2
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0

Tables: TypeAlias = "Mapping[str, Mapping[str, object]]"


class PartyFailed(Exception):
    """A party's process did not come up, or ended; the message has the end of its log."""


class Party:
    """One party. Its parts are made in this order: `make_token`, `pin`, `start`.

    Attributes:
        party_id: Its id.
        directory: Everything it has.
        socket: Its API.
        identity: Its identity key, 33 bytes; empty before `make_token`.
        process: The daemon; None while it does not run.
        program: What Python runs as the daemon.
    """

    def __init__(self, party_id: str, directory: Path) -> None:
        self.party_id = party_id
        self.directory = directory
        self.socket = directory / "tssd.sock"
        self.config = directory / "config.toml"
        self.database = directory / "state" / "tssd.db"
        self.log = directory / "tssd.log"
        self.identity = b""
        self.process: subprocess.Popen[bytes] | None = None
        self.program: tuple[str, ...] = ("-I", "-m", "daemon")

    def make_token(self) -> None:
        """Make the directory and a throw-away SoftHSM token in it."""
        for name in ("state", "custodian"):
            (self.directory / name).mkdir(mode=0o700, parents=True)
        made = subprocess.run(  # noqa: S603  our own script
            [str(INIT_TOKEN), str(self.directory / "token")], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise PartyFailed(made.stderr.strip())

    def configure(self, coordinator_url: str, router_url: str, tables: Tables | None = None) -> None:
        """Write config.toml. tables: keys that replace or extend what is written here."""
        arena = arena_mib()
        token = self.directory / "token"
        written: dict[str, dict[str, object]] = {
            "service": {"socket": self.socket, "state_directory": self.directory / "state"},
            "coordinator": {"url": coordinator_url},
            "router": {"url": router_url},
            "limits": {"sessions": min(64, CEREMONIES_PER_MIB * arena)},
            # Started by root, a network runs as a throw-away user; root is who looks at it then.
            "access": {"operator": [f"uid:{uid}" for uid in sorted({0, os.geteuid()})]},
            "custody": {"start": "spawn"},
            "custodian": {
                "module_path": softhsm(),
                "module_environment": {"SOFTHSM2_CONF": token / "softhsm2.conf"},
                "token_label": "tssd",
                "pin": {"source": "file", "path": token / "pin"},
                "state_directory": self.directory / "custodian",
                "party_ids": [self.party_id],
                "arena_mib": arena,
            },
        }
        for table, keys in (tables or {}).items():
            written.setdefault(table, {}).update(keys)
        self.config.write_text(to_toml(written))

    async def make_keys(self) -> None:
        """Make the keys on the token, as `tssctl hsm init` does; sets `identity`."""
        async with self._operator() as custodian:
            status = await custodian.ask(InitToken(), Status)
        self.identity = status.identity

    async def pin(self, others: Sequence[Party]) -> None:
        """Pin the other parties, as `tssctl peers add` does."""
        pins: Pins | None = None
        async with self._operator() as custodian:
            for other in others:
                edit = EditPins(
                    pins=None if pins is None else pins.signed,
                    action="add",
                    node=other.party_id,
                    identity=other.identity,
                    patterns=(other.party_id,),
                )
                pins = await custodian.ask(edit, Pins)
        if pins is not None:
            store_pins(self.database, pins)

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[Custodian]:
        """A custodian for one operator's command; what it says goes to the party's log."""
        terminal = os.dup(STDERR)
        with self.log.open("ab") as log:
            os.dup2(log.fileno(), STDERR)
        try:
            with trio.fail_after(START_SECONDS):
                async with open_custodian(Spawn(config=self.config, trusted_config=True, operator=True)) as custodian:
                    yield custodian
        except (trio.TooSlowError, CustodianRefused, CustodianGone, CustodyFailure) as error:
            raise self.failed(f"has a custodian that does not answer: {error}") from None
        finally:
            os.dup2(terminal, STDERR)
            os.close(terminal)

    async def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            PartyFailed: It ended, or did not answer in time.
        """
        command = ["setpriv", "--pdeathsig", "TERM"]  # nothing is left running, however we end
        command += [sys.executable, *self.program, "--config", str(self.config), "--trusted-config"]
        # From the main thread, not from trio's workers: the death signal follows the thread that started the process.
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603, ASYNC220  fixed arguments; it returns once the child runs
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        with trio.move_on_after(START_SECONDS):
            async with self.client() as client:
                while self.process.poll() is None:
                    with suppress(httpx.TransportError):
                        (await client.get("/mpc-party/health")).raise_for_status()
                        return
                    await trio.sleep(0.05)
        raise self.failed("did not start")

    def failed(self, what: str) -> PartyFailed:
        """An error with the end of the party's log."""
        end = self.log.read_text(errors="replace").strip().splitlines()[-12:] if self.log.exists() else []
        return PartyFailed("\n".join([f"{self.party_id} {what}", *end]))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Send a signal and wait for the end; killed where that takes too long. Gives the exit status."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return None if process is None else process.returncode
        process.send_signal(number)
        with trio.CancelScope(shield=True):
            descriptor = os.pidfd_open(process.pid)
            try:
                with trio.move_on_after(STOP_SECONDS):
                    await trio.lowlevel.wait_readable(descriptor)
                process.kill()
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return process.wait()

    def client(self) -> httpx.AsyncClient:
        """A client of the party's API."""
        # Without TLS: to load the world's authorities for each client would take longer than what it asks for.
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket), verify=False)
        return httpx.AsyncClient(transport=transport, base_url="http://tssd", timeout=30)


def softhsm() -> Path:
    """The SoftHSM module of this machine."""
    for module in MODULES:
        if module.exists():
            return module
    raise PartyFailed("SoftHSM is not installed; the package is softhsm2")


def arena_mib() -> int:
    """MiB of locked memory that a custodian of ours can have."""
    wanted = ARENA_MIB * MEBIBYTE
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and soft < 2 * wanted:
        raised = 2 * wanted if hard == resource.RLIM_INFINITY else min(2 * wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (raised, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return ARENA_MIB
    return max(1, min(ARENA_MIB, soft // MEBIBYTE - 2))


def to_toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Tables of texts, numbers, flags, lists and tables as TOML."""
    lines = []
    for name, keys in tables.items():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {_value(value)}" for key, value in keys.items())
        lines.append("")
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
