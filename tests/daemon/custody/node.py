"""One node for tests: a throw-away token, a configuration, a custodian on the other side of the wall."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import trio
from msgspec import structs

from daemon.custody import rows
from daemon.custody import state as memory
from daemon.custody.client import Custodian, Spawn, open_custodian
from daemon.custody.wire import EditPins, InitToken, Pins, Seat, ShareRow, Status
from hsm import Pin, Token, open_token
from tests.hsm import nss
from tests.hsm.soft import SoftToken
from tests.tss_cffi import seeded

ROOT = Path(__file__).parents[3]
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
START_SECONDS = 30


@dataclass
class Node:
    """Everything one node has on its disk."""

    directory: Path
    party_id: str
    settings: dict[str, str] = field(default_factory=dict)
    """Further lines of [custodian], as TOML values."""
    tables: str = ""
    """Further tables below it."""
    provider: Literal["softhsm", "nss"] = "softhsm"

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def token(self) -> Path:
        return self.directory / "token"

    @property
    def pin(self) -> str:
        return (self.token / "pin").read_text()

    def write_config(self) -> None:
        values = {
            "module_path": f'"{SOFTHSM}"',
            "module_environment": f'{{ SOFTHSM2_CONF = "{self.token}/softhsm2.conf" }}',
            "token_label": '"tssd"',
            "pin": f'{{ source = "file", path = "{self.token}/pin" }}',
            "state_directory": f'"{self.state}"',
            "party_ids": f'["{self.party_id}"]',
            "arena_mib": "4",
            "threads": "2",
            "hsm_call_seconds": "5",
        }
        if self.provider == "nss":
            token = nss.token_in(self.token)
            values |= {
                "module_path": f'"{token.options["module_path"]}"',
                "module_arguments": f'"{token.options["init_string"]}"',
                "module_environment": "{}",
                "profile": '"nss"',
                "token_label": f'"{token.label}"',
            }
        values |= self.settings
        lines = "".join(f"{name} = {value}\n" for name, value in values.items())
        self.config.write_text(f"[custodian]\n{lines}\n{self.tables}")

    def chain(self) -> list[memory.Event]:
        """What the custodian has written down, while none is running."""
        content = (self.state / "chain").read_bytes()
        _, *records = memory._records(content)
        return [memory._events.decode(value) for _, value, _ in records]

    @contextmanager
    def opened(self, sessions: int = 1) -> Iterator[Token]:
        """The token in this process, as its owner has it with the PIN, while no custodian runs."""
        before = os.environ.get("SOFTHSM2_CONF")
        os.environ["SOFTHSM2_CONF"] = str(self.token / "softhsm2.conf")
        soft = nss.token_in(self.token) if self.provider == "nss" else SoftToken(self.token)
        try:
            with open_token(soft.settings(sessions=sessions), Pin.from_file(self.token / "pin"), None) as token:
                yield token
        finally:
            del os.environ["SOFTHSM2_CONF"]
            if before is not None:
                os.environ["SOFTHSM2_CONF"] = before

    @asynccontextmanager
    async def custodian(self, *, operator: bool = False) -> AsyncIterator[Custodian]:
        how = Spawn(config=self.config, trusted_config=True, operator=operator)
        async with open_custodian(how) as custodian:
            if not operator:
                with trio.fail_after(START_SECONDS):
                    await custodian.wait_ready()
            yield custodian


def copy_node(node: Node, directory: Path) -> Node:
    """The same node with a life of its own."""
    shutil.copytree(node.directory, directory)
    copy = replace(node, directory=directory, settings=dict(node.settings))
    conf = copy.token / "softhsm2.conf"
    conf.write_text(conf.read_text().replace(str(node.directory), str(directory)))
    copy.write_config()
    return copy


def make_node(directory: Path, party_id: str, **changes: object) -> Node:
    """A node whose token has no keys yet."""
    directory.mkdir(parents=True)
    node = Node(directory, party_id, **changes)  # type: ignore[arg-type]  # fields of Node
    if node.provider == "nss":
        nss.make_token(node.token)
    else:
        subprocess.run([ROOT / "softhsm/init-token.sh", node.token, "tssd"], check=True)
    node.write_config()
    return node


async def init(node: Node) -> bytes:
    """Make the keys as an operator does; the identity key."""
    async with node.custodian(operator=True) as operator:
        status = await operator.ask(InitToken(), Status)
    return status.identity


async def pin_all(nodes: dict[str, Node], identities: dict[str, bytes]) -> dict[str, Pins]:
    """Pin every node's peers by name, exactly; the newest list of each."""
    lists = {}
    for name, node in nodes.items():
        async with node.custodian(operator=True) as operator:
            for peer, identity in identities.items():
                if peer == name:
                    continue
                lists[name] = await operator.ask(
                    EditPins(pins=None, action="add", node=peer, identity=identity, patterns=(nodes[peer].party_id,)),
                    Pins,
                )
    return lists


def sealed_row(node: Node, token: Token, size: int, **changes: Any) -> ShareRow:  # noqa: ANN401  (fields of a row)
    """A share of zeros in a row as a plain committee's keygen makes it; needs the arena."""
    fields: dict[str, Any] = {
        "share_id": "zeros",
        "party_id": node.party_id,
        "session": bytes(16),
        "share_type": "wallet",
        "public_key": b"\2" + bytes(32),
        "threshold": 2,
        "committee": (Seat(seat=1, party_id=node.party_id), Seat(seat=2, party_id="other-server")),
        "seat": 1,
        "protocol": "gg18-v2",
        "channel": "plain",
        "generation": 0,
        "transcript": b"",
        "identities": (),
        "result_digest": bytes(32),
        "confirmation": b"",
        "sealed": rows.UNSEALED,
    }
    row = ShareRow(**(fields | changes))
    with seeded.core.SecretBytes(size) as share:
        return structs.replace(row, sealed=rows.sealed_of(token.seal(share, rows.share_header(row))))
