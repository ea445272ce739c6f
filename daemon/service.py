"""The daemon as a tree of tasks: what it stands on, the sessions under way, the doors.

```
run
|- ground       store, custodian, coordinator, router        lost -> as each module says
|  |- keepers   publisher, checkpoints, pool, resealing      each waits out what it needs, none ends by itself
|  |- background  confirmations, notices after a crash       outlive sessions, stop with the daemon
|  |- ceremonies  one task per session                       fails -> that session fails, the others go on
|  `- doors     the API                                      shut first on a stop signal
```

On SIGTERM or SIGINT the doors close, sessions under way have `service.drain_seconds`, then the ground goes. A second
signal ends the drain. Queries are not answered while draining: whoever restarts the daemon waits for its socket.
"""

from __future__ import annotations

import fcntl
import grp
import os
import signal
import socket
import stat
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.api.server import serve
from daemon.ceremonies import restart
from daemon.ceremonies.admission import Admission
from daemon.ceremonies.pool import Pool
from daemon.collector import settle_memory
from daemon.custody.client import Connect, Spawn, open_custodian
from daemon.desk import Desk
from daemon.errors import DaemonError, Refused, SettingsRefused
from daemon.metrics import Metrics
from daemon.network.coordinator import open_coordinator
from daemon.network.publisher import publish_events, publish_reports
from daemon.network.router import open_router
from daemon.readiness import feed_watchdog
from daemon.shares.checkpoints import keep_signing, sign_head
from daemon.shares.reseal import Resealing
from daemon.shares.store import open_store
from daemon.systemd import tell_systemd
from daemon.wall import Wall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from daemon.settings import ServiceSettings, Settings

log = structlog.get_logger(__name__)

FIRST_INHERITED: Final = 3
"""File descriptor of the first socket that systemd hands over (sd_listen_fds(3))."""
BACKLOG: Final = 128
SETTLE_SECONDS: Final = 5.0
"""For the custodian to know how its HSM is."""
FAREWELL_SECONDS: Final = 2.0
"""For the last checkpoint of the audit log."""


async def run(settings: Settings, config: Path, *, trusted_config: bool = False) -> None:
    """Serve until a stop signal.

    Args:
        settings: What config says.
        config: Absolute path of config.toml, for a custodian that we start ourselves.
        trusted_config: Everything runs as one user: that custodian may be able to write its own policy.

    Raises:
        DaemonError: Why the daemon could not start, or cannot go on.
    """
    with only_one(settings.service):
        listeners = open_listeners(settings.service)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with open_ground(settings, config, trusted_config=trusted_config) as desk:
                await serve_until_stopped(desk, listeners, signals)
                await drain(desk, signals)


@asynccontextmanager
async def open_ground(settings: Settings, config: Path, *, trusted_config: bool) -> AsyncIterator[Desk]:
    """Everything that stands below the doors, for as long as the block lasts.

    Sessions still under way when it is left have failed, and their peers are told.
    """
    metrics = Metrics()
    custody = settings.custody
    how = Connect(socket=custody.socket)
    start = Spawn(config=config, trusted_config=trusted_config) if custody.start == "spawn" else how
    async with (
        open_store(settings.service.database) as store,
        open_custodian(start, observe=metrics.observe_call) as custodian,
        open_coordinator(settings.coordinator) as coordinator,
        open_router(settings.router, metrics.router_reconnects.inc) as router,
        trio.open_nursery() as keepers,
        trio.open_nursery() as background,
        trio.open_nursery() as ceremonies,
    ):
        wall = Wall(custodian, settings)
        admission = Admission(settings, store, custodian, metrics)
        desk = Desk(
            settings=settings,
            metrics=metrics,
            store=store,
            custodian=custodian,
            wall=wall,
            coordinator=coordinator,
            router=router,
            admission=admission,
            pool=Pool(settings, store, wall, admission, metrics),
            resealing=Resealing(store, wall),
            ceremonies=ceremonies,
            background=background,
        )
        await restart.pick_up(desk)
        keepers.start_soon(publish_reports, store, coordinator)
        if settings.events.file is not None:
            keepers.start_soon(publish_events, store, settings.events.file)
        keepers.start_soon(keep_signing, settings.audit, store, wall)
        keepers.start_soon(desk.pool.run)
        keepers.start_soon(desk.resealing.run)
        try:
            yield desk
        finally:
            admission.stopping = True
            ceremonies.cancel_scope.cancel()
            background.cancel_scope.cancel()
            keepers.cancel_scope.cancel()
            with trio.move_on_after(FAREWELL_SECONDS, shield=True):
                await _last_checkpoint(desk)


async def serve_until_stopped(desk: Desk, listeners: list[trio.SocketListener], signals: AsyncIterator[int]) -> None:
    """Open the doors, tell systemd, and shut them on a stop signal.

    A custodian that is just opening its HSM is waited for, not for long: a daemon without one still answers queries.
    """
    with trio.move_on_after(SETTLE_SECONDS):
        while desk.custodian.status is None or desk.custodian.status.state == "starting":
            await desk.custodian.wait_change()
    async with trio.open_nursery() as doors:
        await doors.start(serve, desk, listeners)
        doors.start_soon(feed_watchdog)
        settle_memory()
        log.info("listening", pid=os.getpid(), shares=sum((await desk.store.count_shares()).values()))
        tell_systemd("READY=1", "STATUS=listening")
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name, sessions=len(desk.admission.running))
            break
        desk.admission.stopping = True
        tell_systemd("STOPPING=1")
        doors.cancel_scope.cancel()


async def drain(desk: Desk, signals: AsyncIterator[int]) -> None:
    """Let sessions under way come to their end within `service.drain_seconds`; a further signal ends that."""
    with trio.move_on_after(desk.settings.service.drain_seconds):
        async with trio.open_nursery() as waiting:
            waiting.start_soon(_cancel_on, signals, waiting.cancel_scope)
            await desk.admission.wait_idle()
            waiting.cancel_scope.cancel()


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _last_checkpoint(desk: Desk) -> None:
    try:
        await sign_head(desk.store, desk.wall)
    except DaemonError as error:
        log.info("no last checkpoint", problem=error.message)


@contextmanager
def only_one(settings: ServiceSettings) -> Iterator[None]:
    """Two daemons on one state directory would answer for the same shares: the second is refused.

    Raises:
        Refused: Another one runs, or the directory cannot be used.
    """
    directory = settings.state_directory
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{directory}: {error.strerror}", "see service.state_directory") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"another tssd uses {directory}", "stop it, or give this one its own directory") from None
    else:
        yield
    finally:
        os.close(lock)


def open_listeners(settings: ServiceSettings) -> list[trio.SocketListener]:
    """The sockets that systemd hands over, where there are some (LISTEN_FDS), else one of our own.

    Raises:
        SettingsRefused: The socket cannot be made there, or what systemd handed over is no listening Unix socket.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        count = int(os.environ.get("LISTEN_FDS", "0"))
        inherited = [socket.socket(fileno=FIRST_INHERITED + index) for index in range(count)]
        for one in inherited:
            one.set_inheritable(False)
            if one.family != socket.AF_UNIX or one.type != socket.SOCK_STREAM:
                raise SettingsRefused("systemd handed over a socket that is no Unix stream socket", "see tssd.socket")
        if inherited:
            return [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in inherited]
    try:
        return [trio.SocketListener(trio.socket.from_stdlib_socket(_bind(settings)))]
    except (OSError, KeyError) as error:
        raise SettingsRefused(f"{settings.socket}: {error}", "see service.socket and service.group") from None


def _bind(settings: ServiceSettings) -> socket.socket:
    """A listening socket of mode 0660. One that a dead daemon left is replaced: `only_one` holds."""
    path = settings.socket
    group = -1 if settings.group is None else grp.getgrnam(settings.group).gr_gid
    if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o117)
    try:
        listening.bind(str(path))
        os.chown(path, -1, group)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening
