"""Three daemons in this process, without their doors: real stores, real custodians over real tokens, a real router.

Tokens, pins and a first key are made once per test run (`make_template`) and copied for each test.
"""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from daemon import settings
from daemon.desk import Caller, Desk, ParticipateKeygen, ParticipateSigning
from daemon.service import open_ground
from daemon.values import JoinToken, MessageHash, PartyId, PublicKey, SessionId, ShareType
from localnet.coordinator import Coordinator
from localnet.party import Party
from localnet.router import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from daemon.session import Session
    from localnet.coordinator import Invitation
    from localnet.party import Tables

NAMES = ("alice-server", "bob-phone", "carol-backup")
CALLER = Caller(name="uid:1000")
START_SECONDS = 30
SESSION_SECONDS = 60


@dataclass
class Committee:
    """Whoever runs, by party id; `parties` has all, running or not."""

    parties: dict[str, Party]
    coordinator: Coordinator
    router: Router
    desks: dict[str, Desk] = field(default_factory=dict)
    stops: dict[str, trio.Event] = field(default_factory=dict)
    stopped: dict[str, trio.Event] = field(default_factory=dict)
    nursery: trio.Nursery = field(init=False)

    async def keygen(self, threshold: int = 2, *, among: Sequence[str] | None = None) -> SessionId:
        """Ask the parties that run for a keygen of all; give its session at once."""
        made = self.coordinator.create_keygen(list(self.parties), threshold)
        for name in among or list(self.desks):
            await self.desks[name].participate_keygen(self.keygen_command(made, name, threshold), CALLER)
        return SessionId(made.session_id)

    def keygen_command(self, made: Invitation, name: str, threshold: int = 2) -> ParticipateKeygen:
        return ParticipateKeygen(
            session_id=SessionId(made.session_id),
            party_id=PartyId(name),
            join_token=JoinToken(made.join_tokens[name]),
            share_type=ShareType.WALLET,
            threshold=threshold,
            parties=frozenset(map(PartyId, self.parties)),
        )

    async def sign(
        self, key: str, signers: Sequence[str], message: bytes = bytes(32), *, among: Sequence[str] | None = None
    ) -> SessionId:
        """Ask the signers, or those among them, to sign; give the session at once."""
        made = self.coordinator.create_signing(key, signers, message.hex())
        for name in among or signers:
            await self.desks[name].participate_signing(self.signing_command(made, name, key, message), CALLER)
        return SessionId(made.session_id)

    def signing_command(
        self, made: Invitation, name: str, key: str | None, message: bytes = bytes(32)
    ) -> ParticipateSigning:
        return ParticipateSigning(
            session_id=SessionId(made.session_id),
            party_id=PartyId(name),
            join_token=JoinToken(made.join_tokens[name]),
            message_hash=MessageHash(message),
            public_key=None if key is None else PublicKey.parse(key),
        )

    async def ended(self, session_id: SessionId, names: Sequence[str] | None = None) -> dict[str, Session]:
        """Wait until the session has ended at each party; how it ended there."""
        found: dict[str, Session] = {}

        async def wait(name: str) -> None:
            desk = self.desks[name]
            async for _ in desk.follow(session_id):
                pass
            found[name] = await desk.session(session_id)

        with trio.fail_after(SESSION_SECONDS):
            async with trio.open_nursery() as nursery:
                for name in names or list(self.desks):
                    nursery.start_soon(wait, name)
        return found

    async def start(self, *names: str) -> None:
        """Start daemons side by side, and wait until each could sign."""

        async def run(name: str, *, task_status: trio.TaskStatus[None]) -> None:
            party = self.parties[name]
            read = settings.load(party.config)
            async with open_ground(read, party.config, trusted_config=True) as desk:
                with trio.fail_after(START_SECONDS):
                    await desk.custodian.wait_ready()
                self.desks[name] = desk
                stop = self.stops[name] = trio.Event()
                task_status.started()
                await stop.wait()
                del self.desks[name]
            self.stopped[name].set()

        async with trio.open_nursery() as starting:
            for name in names:
                self.stopped[name] = trio.Event()
                starting.start_soon(self.nursery.start, run, name)

    async def stop(self, name: str) -> None:
        """Stop a daemon as its end of `run` does, without a drain."""
        self.stops[name].set()
        await self.stopped[name].wait()


def copy_party(party: Party, directory: Path) -> Party:
    """The same node elsewhere: token, pins, shares."""
    copied = Party(party.party_id, directory / party.party_id)
    shutil.copytree(party.directory, copied.directory, ignore=shutil.ignore_patterns("*.sock", "lock"))
    configuration = copied.directory / "token" / "softhsm2.conf"
    configuration.write_text(configuration.read_text().replace(str(party.directory), str(copied.directory)))
    copied.identity = party.identity
    return copied


@dataclass
class Template:
    """What tests start from: nodes that pinned one another and hold a 2-of-3 key."""

    parties: dict[str, Party]
    key: str
    coordinator: Coordinator


@asynccontextmanager
async def open_committee(
    template: Template, directory: Path, *, tables: Mapping[str, Tables] | None = None, start: Sequence[str] = NAMES
) -> AsyncIterator[Committee]:
    """A committee in a directory of its own. tables: of config.toml, by party id, `*` for all."""
    parties = {name: copy_party(party, directory) for name, party in template.parties.items()}
    coordinator = Coordinator()
    coordinator._keys = template.coordinator._keys.copy()  # it knows the template's key
    committee = Committee(parties, coordinator, Router())
    async with coordinator.serving() as coordinator_url, committee.router.serving() as router_url:
        for name, party in parties.items():
            party.configure(coordinator_url, router_url, merged(tables or {}, name))
        async with trio.open_nursery() as nursery:
            committee.nursery = nursery
            await committee.start(*start)
            yield committee
            for name in list(committee.desks):
                committee.stops[name].set()


def merged(tables: Mapping[str, Tables], name: str) -> Tables:
    small: dict[str, dict[str, object]] = {
        "limits": {"sessions": 8},
        "custodian": {"arena_mib": 4, "signings_per_minute": 10000, "signings_per_hour": 100000},
        "keygen": {"prepared": 1},
    }
    for which in ("*", name):
        for table, keys in tables.get(which, {}).items():
            small.setdefault(table, {}).update(keys)
    return small


async def make_template(directory: Path) -> Template:
    """Tokens, keys, pins, and a first key of all three."""
    coordinator, router = Coordinator(), Router()
    parties = {name: Party(name, directory / name) for name in NAMES}
    async with coordinator.serving() as coordinator_url, router.serving() as router_url:
        for party in parties.values():
            await trio.to_thread.run_sync(party.make_token)
            party.configure(coordinator_url, router_url, merged({}, party.party_id))
            await party.make_keys()
        for party in parties.values():
            await party.pin([other for other in parties.values() if other is not party])
        committee = Committee(parties, coordinator, router)
        async with trio.open_nursery() as nursery:
            committee.nursery = nursery
            await committee.start(*NAMES)
            session = await committee.keygen()
            ended = await committee.ended(session)
            with trio.fail_after(START_SECONDS):
                await coordinator.outcome(str(session))
            for desk in committee.desks.values():
                with trio.fail_after(SESSION_SECONDS):
                    while not await desk.store.prepared_count("gg18-v3"):  # noqa: ASYNC110  made in the background
                        await trio.sleep(0.1)
            for name in NAMES:
                committee.stops[name].set()
    keys = {str(end.public_key) for end in ended.values()}
    assert len(keys) == 1
    return Template(parties, keys.pop(), coordinator)
