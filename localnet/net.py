"""A whole network on one machine: a coordinator, a router, and parties that pinned one another."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from localnet.coordinator import Coordinator
from localnet.party import Party
from localnet.router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from localnet.coordinator import Session
    from localnet.party import Tables


class SessionFailed(Exception):
    """A ceremony did not complete; the message says what each party says of it."""


@contextmanager
def plainly(*kinds: type[Exception]) -> Iterator[None]:
    """Let an error of these kinds leave a nursery as itself; where there are several, the first."""
    try:
        yield
    except ExceptionGroup as group:
        expected, others = group.split(kinds)
        if expected is None or others is not None:
            raise
        error: Exception = expected
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None


class Neighbour:
    """Coordinator or router, as a process of its own would be: it can end, and start again at its address."""

    def __init__(self, service: Coordinator | Router, nursery: trio.Nursery) -> None:
        self.url = ""
        self._service = service
        self._nursery = nursery
        self._serving = trio.CancelScope()
        self._over = trio.Event()

    async def start(self) -> None:
        """Serve; where it did before, at the same address."""
        self.url = await self._nursery.start(self._serve)

    async def stop(self) -> None:
        """Hang up on everybody and refuse connections from now on."""
        self._serving.cancel()
        await self._over.wait()

    async def _serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        self._over = trio.Event()
        port = int(self.url.rpartition(":")[2] or 0)
        with trio.CancelScope() as self._serving:
            async with self._service.serving(port=port) as url:
                task_status.started(url)
                await trio.sleep_forever()
        self._over.set()


@dataclass
class Net:
    """The running network.

    Attributes:
        parties: By party id, in the order of their seats.
        coordinator: Creates the sessions.
        coordinator_server: Serves it.
        router: Carries the frames.
        router_server: Serves it.
        on_step: Called with the party id and each step of its sessions, as the progress stream tells it.
    """

    parties: dict[str, Party]
    coordinator: Coordinator
    coordinator_server: Neighbour
    router: Router
    router_server: Neighbour
    on_step: Callable[[str, dict[str, Any]], None] | None = None

    @property
    def coordinator_url(self) -> str:
        """The coordinator's address."""
        return self.coordinator_server.url

    @property
    def router_url(self) -> str:
        """The router's address."""
        return self.router_server.url

    async def restart_router(self, seconds: float = 0.0) -> None:
        """End the router, with all that it had; back after so long."""
        await self.router_server.stop()
        self.router.forget()
        await trio.sleep(seconds)
        await self.router_server.start()

    async def restart_coordinator(self, seconds: float = 0.0) -> None:
        """End the coordinator, whose sessions are kept as in a database; back after so long."""
        await self.coordinator_server.stop()
        await trio.sleep(seconds)
        await self.coordinator_server.start()

    async def keygen(self, threshold: int, *, share_type: str = "wallet") -> str:
        """Make a key of all parties; gives its public key, hex.

        Raises:
            SessionFailed: It did not complete.
        """
        made = self.coordinator.create_keygen(list(self.parties), threshold)
        expected = {"shareType": share_type, "threshold": threshold, "parties": list(self.parties)}
        session = await self.ceremony("keygen", made.session_id, made.join_tokens, expected)
        result = session.result()
        assert result is not None  # noqa: S101  narrows the type: a completed session has one
        return result.public_key or ""

    async def sign(self, public_key: str, signers: Sequence[str], message_hash: str) -> str:
        """Sign a 32-byte hash, hex, by exactly the threshold's number of parties; gives r||s, hex.

        Raises:
            SessionFailed: It did not complete.
        """
        made = self.coordinator.create_signing(public_key, signers, message_hash)
        expected = {"messageHash": message_hash, "publicKey": public_key}
        session = await self.ceremony("signing", made.session_id, made.join_tokens, expected)
        result = session.result()
        assert result is not None  # noqa: S101  narrows the type: a completed session has one
        return result.signature or ""

    async def ceremony(
        self, kind: str, session_id: str, tokens: Mapping[str, str], expected: Mapping[str, object]
    ) -> Session:
        """Ask each invited party to take part, and wait until all have reported.

        Args:
            kind: `keygen` or `signing`, as in the route.
            session_id: The session that the coordinator made.
            tokens: Join token by party id.
            expected: The rest of the request's body.

        Raises:
            SessionFailed: A party refused or failed, or the reports differ.
        """

        async def take_part(party_id: str, token: str) -> None:
            body = {"sessionId": session_id, "partyId": party_id, "joinToken": token, **expected}
            session = await self.take_part(party_id, kind, body)
            if session["status"] != "completed":
                why = session["errorMessage"] or session["reason"]
                raise SessionFailed(f"{party_id}: {session['status']}: {why}")

        with plainly(SessionFailed):
            async with trio.open_nursery() as nursery:
                for party_id, token in tokens.items():
                    nursery.start_soon(take_part, party_id, token)
                session = await self.coordinator.outcome(session_id)
        self.router.forget(session_id)
        if session.status != "completed":
            raise SessionFailed(f"session {session_id}: the parties' reports differ")
        return session

    async def take_part(self, party_id: str, kind: str, body: dict[str, object]) -> dict[str, Any]:
        """Ask one party to take part and follow it to the end of its session; gives the session as it says it ended.

        Raises:
            SessionFailed: It refused.
        """
        async with self.parties[party_id].client() as client:
            answer = await client.post(f"/mpc-party/{kind}/participate", json=body)
            if answer.is_error:
                problem = answer.json()
                raise SessionFailed(f"{party_id} refused: {problem['detail']}: {problem['remedy']}")
            path = f"/mpc-party/sessions/{body['sessionId']}"
            async with client.stream("GET", f"{path}/events", timeout=None) as steps:
                async for line in steps.aiter_lines():
                    if line.startswith("data: ") and self.on_step is not None:
                        self.on_step(party_id, json.loads(line.removeprefix("data: ")))
            session: dict[str, Any] = (await client.get(path)).raise_for_status().json()
            return session


@asynccontextmanager
async def open_net(
    directory: Path,
    party_ids: Sequence[str],
    *,
    tables: Tables | None = None,
    told: Callable[[str], None] = lambda _: None,
    before_start: Callable[[Party], None] = lambda _: None,
) -> AsyncIterator[Net]:
    """Make a network in an empty directory and run it for as long as the block lasts.

    Args:
        directory: Everything is made in here; its path has at most 70 bytes, for it leads to Unix sockets.
        party_ids: The parties; each has a node of its own.
        tables: Keys of config.toml for every party, in place of those that localnet/party.py writes.
        told: Called with what is about to be done.
        before_start: Called with each party that has all but its daemon.

    Raises:
        PartyFailed: A party did not come up.
    """
    coordinator, router = Coordinator(), Router()
    parties = {party_id: Party(party_id, directory / party_id) for party_id in party_ids}
    async with trio.open_nursery() as nursery:
        net = Net(parties, coordinator, Neighbour(coordinator, nursery), router, Neighbour(router, nursery))
        await net.coordinator_server.start()
        await net.router_server.start()
        told("HSM tokens")
        for party in parties.values():
            await trio.to_thread.run_sync(party.make_token)
            party.configure(net.coordinator_url, net.router_url, tables)
        told("keys on the tokens")
        for party in parties.values():
            await party.make_keys()
        told("pins of one another's identities")
        for party in parties.values():
            await party.pin([other for other in parties.values() if other is not party])
        try:
            told("daemons and custodians")
            for party in parties.values():
                before_start(party)
                await party.start()
            yield net
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as stopping:
                    for party in parties.values():
                        stopping.start_soon(party.stop)
        nursery.cancel_scope.cancel()
