"""The secret side's process: HSM, shares and protocol rounds behind the wall's typed frames.

One thread reads calls and answers `GetStatus`; workers carry out the others, one for each core, the calls of one
ceremony in their order, with more beside them for what opens one stored share after another; two threads keep the HSM
and watch for calls that hang. There is no network here, no database and no path that a request could name. When the
connection ends the process ends, and with it everything it held.
"""
# ruff: noqa: I001  (the core comes first, see below)

from __future__ import annotations

# Before anything else brings libcrypto up: only then does what it allocates for our keys lie in the arena.
from tss_cffi import ArenaUnavailable, open_arena
from tss_cffi.channel import libcrypto_locked

import argparse
import os
import socket
import struct
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from daemon.collector import settle_memory
from daemon.custody import log
from daemon.custody.hardening import become_owner_of, harden
from daemon.custody.operation import OperatorRequests
from daemon.custody.pins import PinBook
from daemon.custody.policy import CustodianPolicy, PolicyRefused, read_policy
from daemon.custody.refusal import Refusal, refusal_of
from daemon.custody.requests import ServiceRequests
from daemon.custody.seats import Ground
from daemon.custody.state import State, StateRefused, open_directory, read_peering
from daemon.custody.vault import Vault
from daemon.custody.watchdog import Watchdog
from daemon.custody.wire import (
    CALL_MAX,
    HEADER_LENGTH,
    RECEIVE_BYTES,
    Answer,
    Broken,
    Call,
    CheckConfirmations,
    ConfirmRow,
    Failure,
    GetStatus,
    OpenAndCheck,
    Prepare,
    Reply,
    Request,
    Reseal,
    body_length,
    decode_call,
    encode,
)
from daemon.custody.workers import Lane, Workers
from daemon.systemd import tell_systemd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REFUSED_STATUS: Final = 78
"""Exit status (EX_CONFIG): it cannot start until somebody changes something."""
REFUSED_SECONDS: Final = 5.0
"""Before it exits so under systemd, which starts it again at once for the connection that still waits."""
OPERATOR_MIB: Final = 1
"""Locked memory where there are no ceremonies: a terminal's limit is lower than the unit's."""
CALLS_MAX: Final = 1024
"""Calls under way at a time; more are answered `busy` unread."""
PREPARING_NICE: Final = 10
LISTEN_FD: Final = 3
"""The first descriptor that systemd hands over (sd_listen_fds(3))."""
BY_ROW: Final = (CheckConfirmations, ConfirmRow, OpenAndCheck, Reseal)
"""What is asked about one stored share after another, and belongs to no ceremony that is held here."""


class Requests(Protocol):
    """What carries calls out."""

    def lane(self, request: Request) -> Lane | None:
        """The lane whose calls must not overlap with this one."""

    def answer(self, request: Request, now_ms: int) -> Answer:
        """Carry one out. Raises what `refusal_of` knows."""


class Connection:
    """The one connection, to tssd."""

    def __init__(self, stream: socket.socket, requests: Requests, *, threads: int, row_threads: int) -> None:
        stream.settimeout(None)
        self._stream = stream
        self._requests = requests
        self._workers = Workers(threads, "worker")
        # In threads of their own: neither a store that is worked through, row by row, nor a search, a second for each
        # call, must keep a ceremony waiting.
        self._rows = Workers(row_threads, "rows")
        self._preparing = Workers(1, "preparing", nice=PREPARING_NICE)
        self._writing = threading.Lock()
        self._room = threading.Semaphore(CALLS_MAX)

    def serve(self) -> None:
        """Read calls until the other end is closed, or speaks nonsense."""
        try:
            for call in self._calls():
                if isinstance(call.request, GetStatus):
                    self._reply(call, self._carry_out(call))
                elif self._room.acquire(blocking=False):
                    self._workers_for(call.request).put(partial(self._work, call), self._requests.lane(call.request))
                else:
                    self._reply(call, Failure(kind="busy", message="too many calls at a time", field=""))
        except Broken as error:
            log.error("tssd broke the wall's rules", problem=str(error))
        except OSError as error:
            log.info("the connection to tssd ended", problem=str(error))

    def _workers_for(self, request: Request) -> Workers:
        if isinstance(request, BY_ROW):
            return self._rows
        return self._preparing if isinstance(request, Prepare) else self._workers

    def _calls(self) -> Iterator[Call]:
        buffer = bytearray()
        while received := self._stream.recv(RECEIVE_BYTES):
            buffer += received
            start = 0
            while len(buffer) - start >= HEADER_LENGTH:
                body = start + HEADER_LENGTH
                end = body + body_length(bytes(buffer[start:body]), CALL_MAX)
                if len(buffer) < end:
                    break
                yield decode_call(bytes(buffer[body:end]))
                start = end
            del buffer[:start]

    def _work(self, call: Call) -> None:
        answer = self._carry_out(call)
        self._room.release()
        try:
            self._reply(call, answer)
        except (OSError, Broken) as error:
            log.info("an answer was not delivered", problem=str(error))

    def _carry_out(self, call: Call) -> Answer:
        try:
            return self._requests.answer(call.request, call.now_ms)
        except Exception as error:  # noqa: BLE001  (what nobody expected is told, and answered as a defect)
            refusal = refusal_of(error)
            if refusal is None:
                name = type(call.request).__name__
                log.exception("a defect", request=name)
                refusal = Refusal("internal", f"{name} met a defect of the custodian; its log has the place")
            return refusal.answer()

    def _reply(self, call: Call, answer: Answer) -> None:
        frame = encode(Reply(number=call.number, answer=answer))
        with self._writing:
            self._stream.sendall(frame)


def accepted(policy: CustodianPolicy) -> socket.socket:
    """The first connection of tssd's user to the socket that systemd listens on for us.

    Raises:
        PolicyRefused: systemd hands over no socket, or the policy does not say whose connection to take.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise PolicyRefused("neither --fd nor a socket of systemd's was given")
    if policy.peer_uid is None:
        raise PolicyRefused("custodian.peer_uid must say which user tssd runs as")
    listener = socket.socket(fileno=LISTEN_FD)
    listener.set_inheritable(False)
    tell_systemd("READY=1")
    while True:
        stream, _ = listener.accept()
        pid, uid, gid = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid == policy.peer_uid:
            return stream
        log.warning("a connection of another user was refused", pid=pid, uid=uid, gid=gid)
        stream.close()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tssd-custodian",
        description="Keeps shares and steps protocol rounds behind an HSM. Started by tssd, tssctl or systemd.",
    )
    parser.add_argument("--config", type=Path, required=True, help="absolute path of config.toml")
    parser.add_argument("--fd", type=int, help="connected socket; without it, systemd's listening one is used")
    parser.add_argument(
        "--trusted-config",
        action="store_true",
        help="everything runs as one user: do not refuse a configuration that we could write ourselves",
    )
    parser.add_argument("--operator", action="store_true", help="take an operator's requests, from a terminal")
    parser.add_argument("--restarted", action="store_true", help="nobody is at the terminal: do not ask for a PIN")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Start, serve one connection, end.

    Raises:
        PolicyRefused, StateRefused, ArenaUnavailable: It cannot start until somebody changes something.
    """
    policy = read_policy(options.config, trusted=options.trusted_config or options.operator)
    if options.operator:
        become_owner_of(policy.state_directory)
    harden(follow_parent=options.fd is not None)
    open_arena((OPERATOR_MIB if options.operator else policy.arena_mib) * 1024 * 1024)
    if not libcrypto_locked():
        raise ArenaUnavailable(
            "libcrypto was in use before our core was loaded, and its copies of our keys could be swapped: start us in "
            "a Python where nothing loads it first (a .pth file or a sitecustomize that imports ssl or hashlib)"
        )
    watchdog = Watchdog(policy.hsm_call_seconds)
    vault = Vault(policy, watchdog, may_ask=not options.restarted, operator=options.operator)
    requests: Requests
    if options.operator:
        os.close(open_directory(policy.state_directory))
        book = PinBook(policy.state_directory, partial(read_peering, policy.state_directory))
        requests = OperatorRequests(vault, book, policy.state_directory)
    else:
        state = State(policy.state_directory)
        requests = ServiceRequests(Ground(policy, state, vault, PinBook(policy.state_directory, state.recall)))
    watchdog.start()
    stream = accepted(policy) if options.fd is None else socket.socket(fileno=options.fd)
    if not options.operator:
        vault.start()
    settle_memory()
    Connection(stream, requests, threads=vault.threads, row_threads=vault.row_threads).serve()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `tssd-custodian`."""
    options = parsed(arguments)
    try:
        run(options)
    except (PolicyRefused, StateRefused, ArenaUnavailable) as error:
        log.error("the custodian cannot start", problem=str(error))
        if options.fd is None:
            time.sleep(REFUSED_SECONDS)
        os._exit(REFUSED_STATUS)
    # At once: workers may be inside the HSM or the core, and the kernel clears what it takes back.
    os._exit(0)


if __name__ == "__main__":
    main()
