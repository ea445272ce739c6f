"""The network side's end of the wall: starts the custodian, asks it, and brings it back when it dies or hangs.

A call ends in one of three ways: with the answer, with `CustodyFailure` (the custodian refused, and said why), or with
`CustodianGone` (the process it was put to is no more, and with it every ceremony it held). `Custodian.epoch` counts
processes: what was begun in one epoch is unknown in the next.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import trio

from daemon.custody.wire import (
    HEADER_LENGTH,
    RECEIVE_BYTES,
    REPLY_MAX,
    Answer,
    Broken,
    Call,
    Failure,
    FailureKind,
    Frame,
    GetStatus,
    Reply,
    Request,
    Status,
    body_length,
    decode_reply,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=Frame)

CALL_SECONDS: Final = 20.0
"""A call that takes longer ends the process: nothing behind the wall waits for a peer or for the network."""
HEARTBEAT_SECONDS: Final = 1.0
IMPATIENT_SECONDS: Final = 0.1
"""Between heartbeats while it is not ready."""
HEARTBEAT_LIMIT: Final = 5.0
"""`GetStatus` is answered without HSM and core. A process that leaves it unanswered for so long hangs."""
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0
STEADY_SECONDS: Final = 10.0
"""A process that ran for so long did not crash at once: the next start is at no delay."""
BACKOFF_SECONDS: Final = (0.0, 0.1, 0.25, 0.5)
REFUSED_STATUS: Final = 78
"""Exit status (EX_CONFIG) of a custodian that cannot start until somebody changes something."""
REFUSED_SECONDS: Final = 5.0


class CustodyFailure(Exception):
    """The custodian did not carry the request out. field: the argument or row field it is about; may be empty."""

    def __init__(self, kind: FailureKind, message: str, field: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field


class CustodianGone(Exception):
    """The process that was asked ended, or there is none now. It is being brought back."""


class CustodianRefused(Exception):
    """The custodian would not start at all; its own message is on standard error."""


@dataclass(frozen=True, kw_only=True)
class Spawn:
    """A custodian of our own, over a socketpair, under our own user.

    Attributes:
        config: Absolute path of config.toml.
        trusted_config: Everything runs as one user: the custodian may be able to write its own policy.
        operator: For one operator's command on a terminal.
        stderr: Descriptor of a file for what it logs; our own standard error where not given.
    """

    config: Path
    trusted_config: bool = False
    operator: bool = False
    stderr: int | None = None


@dataclass(frozen=True, kw_only=True)
class Connect:
    """A custodian that systemd starts, behind its listening socket."""

    socket: Path


def _observe_nothing(request: str, outcome: str, seconds: float) -> None:
    """Default of `observe`."""


class _Pending:
    """One call under way."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Answer | None = None


class _Connection:
    """One process, from its first frame to its end."""

    def __init__(self, stream: trio.SocketStream, process: subprocess.Popen[bytes] | None) -> None:
        self.alive = True
        self._stream = stream
        self._process = process
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._unsent = bytearray()

    async def ask(self, request: Request) -> Answer:
        """One call. Raises CustodianGone."""
        if not self.alive:
            raise CustodianGone("the custodian has ended")
        self._number += 1
        number = self._number
        frame = encode(Call(number=number, now_ms=int(trio.current_time() * 1000), request=request))
        pending = self._pending[number] = _Pending()
        sending = bool(self._unsent)
        self._unsent += frame
        if not sending:
            await self._send()
        await pending.done.wait()
        if pending.answer is None:
            raise CustodianGone("the custodian ended before it answered")
        return pending.answer

    async def _send(self) -> None:
        """Send what is there, and what comes meanwhile; by one task at a time.

        By the bare descriptor: there is room for a frame nearly always, and trio's own `send_all` would go around its
        loop for each. Whole or not at all: nothing could be read after half a frame. A process that does not read is
        ended by the heartbeat, so this ends too.
        """
        descriptor = self._stream.socket.fileno()
        with trio.CancelScope(shield=True), suppress(OSError, trio.ClosedResourceError):
            while self._unsent:
                try:
                    del self._unsent[: os.write(descriptor, self._unsent)]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(descriptor)

    async def read(self) -> None:
        """Hand out replies until the other end is gone or speaks nonsense."""
        try:
            await self._read()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Broken as error:
            log.exception("the custodian broke the wall's rules", problem=str(error))
        finally:
            self.alive = False
            for pending in self._pending.values():
                pending.done.set()
            self._pending.clear()

    async def _read(self) -> None:
        buffer = bytearray()
        while received := await self._stream.receive_some(RECEIVE_BYTES):
            buffer += received
            start = 0
            while len(buffer) - start >= HEADER_LENGTH:
                body = start + HEADER_LENGTH
                end = body + body_length(bytes(buffer[start:body]), REPLY_MAX)
                if len(buffer) < end:
                    break
                self._settle(decode_reply(bytes(buffer[body:end])))
                start = end
            del buffer[:start]

    def _settle(self, reply: Reply) -> None:
        pending = self._pending.pop(reply.number, None)
        if pending is None:
            raise Broken(f"an answer to call {reply.number}, which waits for none")
        pending.answer = reply.answer
        pending.done.set()

    def end(self) -> None:
        """End the process at once, whatever it does."""
        self.alive = False
        if self._process is not None:
            self._process.kill()
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_RDWR)

    async def close(self) -> int | None:
        """Let it wipe and exit, or end it where it does not; its exit status, where it is our child."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
            if self._process is not None:
                await _ended(self._process)
        return None if self._process is None else self._process.wait()


async def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        with trio.move_on_after(STOP_SECONDS):
            await trio.lowlevel.wait_readable(descriptor)
        process.kill()
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _typed(answer: Answer, expect: type[A]) -> A:
    if not isinstance(answer, expect):
        raise Broken(f"{expect.__name__} was due, {type(answer).__name__} came")
    return answer


class Custodian:
    """The custodian, whichever process it is at the moment. Made by `open_custodian`; for tasks of one trio run.

    Attributes:
        epoch: Grows by one with each process that came up. Ceremonies of an earlier epoch are gone.
        status: The latest answer to `GetStatus`, at most about a second old; None while there is no process.
        reason: Why there is none, in an operator's words; empty while there is one.
        restarts: Processes after the first.
    """

    def __init__(self, how: Spawn | Connect, observe: Callable[[str, str, float], None]) -> None:
        self.epoch = 0
        self.status: Status | None = None
        self.reason = "the custodian is starting"
        self.restarts = 0
        self._how = how
        self._observe = observe
        self._connection: _Connection | None = None
        self._changed = trio.Event()

    @property
    def ready(self) -> bool:
        """Whether it could open a share now."""
        return self.status is not None and self.status.state == "ready"

    async def wait_change(self) -> None:
        """Return when `epoch`, `reason` or the state within `status` has changed."""
        await self._changed.wait()

    async def wait_ready(self) -> None:
        """Return when `ready` is true; the caller's deadline is the bound."""
        while not self.ready:
            await self.wait_change()

    async def ask(
        self, request: Request, expect: type[A], *, seconds: float = CALL_SECONDS, epoch: int | None = None
    ) -> A:
        """Put one request and wait for its answer.

        Args:
            request: Any request of the wall.
            expect: The type its docstring names as the answer.
            seconds: After so long the process counts as hanging and is ended, with everything in it.
            epoch: Ask this process only; by default whichever is there.

        Raises:
            CustodyFailure: It was not carried out; kind, message and field say why.
            CustodianGone: There is no such process, or it ended before it answered; whether it acted is unknown.
            Broken: It answered with another type: one side is not of this version.
        """
        name, began = type(request).__name__, trio.current_time()
        outcome = "gone"
        try:
            answer = await self._ask(request, seconds, epoch)
            if isinstance(answer, Failure):
                outcome = answer.kind
                raise CustodyFailure(answer.kind, answer.message, answer.field)
            typed = _typed(answer, expect)
            outcome = "done"
            return typed
        finally:
            self._observe(name, outcome, trio.current_time() - began)

    async def _ask(self, request: Request, seconds: float, epoch: int | None) -> Answer:
        connection = self._connection
        if connection is None:
            raise CustodianGone(self.reason)
        if epoch is not None and epoch != self.epoch:
            raise CustodianGone("the custodian was restarted; its ceremonies are gone")
        return await self._ask_within(connection, request, seconds)

    async def _ask_within(self, connection: _Connection, request: Request, seconds: float) -> Answer:
        with trio.move_on_after(seconds):
            return await connection.ask(request)
        self.reason = f"the custodian did not answer {type(request).__name__} within {seconds:g} s and was ended"
        log.error("custodian ended for hanging", reason=self.reason)
        connection.end()
        raise CustodianGone(self.reason)

    async def _supervise(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep one process up until cancelled. One that somebody else starts is not waited for."""
        quick_ends = 0
        if isinstance(self._how, Connect):
            task_status.started()
        while True:
            began = trio.current_time()
            exit_status = await self._live(task_status)
            if self.epoch == 0 and exit_status == REFUSED_STATUS:
                raise CustodianRefused("the custodian refuses to start; its message is on standard error")
            if trio.current_time() - began > STEADY_SECONDS:
                quick_ends = 0
            delay = BACKOFF_SECONDS[min(quick_ends, len(BACKOFF_SECONDS) - 1)]
            if exit_status == REFUSED_STATUS:
                delay = REFUSED_SECONDS
            quick_ends += 1
            self.restarts += 1
            if quick_ends <= len(BACKOFF_SECONDS):  # what goes on and on is said by /ready and the figures
                log.warning("custodian away", exit_status=exit_status, problem=self.reason, epoch=self.epoch)
            await trio.sleep(delay)

    async def _live(self, task_status: trio.TaskStatus[None]) -> int | None:
        """One process from start to end; its exit status, where it is our child."""
        try:
            stream, process = await self._start()
        except OSError as error:
            where = f" at {self._how.socket}" if isinstance(self._how, Connect) else ""
            self._set_reason(
                f"the custodian cannot be reached{where}: {error.strerror}; see systemctl status tssd-custodian.socket"
            )
            return None
        connection = _Connection(stream, process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, connection, task_status)
                await connection.read()
                nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            self.status = None
            self._set_reason(self.reason or "the custodian has ended and is being restarted")
            exit_status = await connection.close()
        return exit_status

    async def _start(self) -> tuple[trio.SocketStream, subprocess.Popen[bytes] | None]:
        if isinstance(self._how, Connect):
            return await trio.open_unix_socket(self._how.socket), None
        ours, theirs = trio.socket.socketpair()
        with theirs:
            # Not trio's own spawning: that is done by a worker thread, and the child would die with it.
            process = subprocess.Popen(  # noqa: S603, ASYNC220  (fixed arguments; it returns once the child runs)
                [sys.executable, "-I", "-m", "daemon.custody.custodian", *self._arguments(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if isinstance(self._how, Connect) else self._how.stderr,
                pass_fds=(theirs.fileno(),),
            )
        return trio.SocketStream(ours), process

    def _arguments(self, descriptor: int) -> list[str]:
        assert isinstance(self._how, Spawn)  # noqa: S101  (narrows the type for the checker)
        arguments = ["--config", str(self._how.config), "--fd", str(descriptor)]
        if self._how.trusted_config:
            arguments.append("--trusted-config")
        if self._how.operator:
            arguments.append("--operator")
        if self.epoch:
            arguments.append("--restarted")  # nobody sits at the terminal any more
        return arguments

    async def _watch(self, connection: _Connection, task_status: trio.TaskStatus[None]) -> None:
        """Refresh `status` each second, and end a process that leaves even that unanswered."""
        limit = START_SECONDS
        try:
            while True:
                status = _typed(await self._ask_within(connection, GetStatus(), limit), Status)
                before, self.status = self.status, status
                if before is None:
                    self._connection = connection
                    self.epoch += 1
                    self.reason = ""
                    if self.epoch == 1 and isinstance(self._how, Spawn):
                        task_status.started()
                if before is None or before.state != status.state:
                    self._tell()
                limit = HEARTBEAT_LIMIT
                await trio.sleep(HEARTBEAT_SECONDS if self.ready else IMPATIENT_SECONDS)
        except CustodianGone:
            return  # the reader sees the end too
        except Broken:
            connection.end()

    def _set_reason(self, reason: str) -> None:
        self.reason = reason
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_custodian(
    how: Spawn | Connect, *, observe: Callable[[str, str, float], None] = _observe_nothing
) -> AsyncIterator[Custodian]:
    """Run a custodian for as long as the block lasts; entered when the first process that we start has answered.

    Must be entered from the main thread: a spawned custodian dies with the thread that started it.

    Args:
        how: Start one, or connect to systemd's.
        observe: Called after each call with the request's name, its outcome ("done", "gone" or a failure's kind) and
            the seconds it took: for metrics.

    Raises:
        CustodianRefused: The configuration cannot be used, or memory cannot be locked, at the first start.
    """
    custodian = Custodian(how, observe)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(custodian._supervise)  # noqa: SLF001  (the one place that runs it)
            try:
                yield custodian
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Supervision is not the caller's business: what its block raised leaves as it was.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
