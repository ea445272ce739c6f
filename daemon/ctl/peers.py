"""`tssctl peers`: the nodes whose identity keys are pinned.

Listing asks tssd; changing and verifying go through a custodian on the operator's terminal, which signs the new list.
The list is then left in the share store, from where tssd takes it for its next ceremony, whether it runs now or not.
"""

# No `from __future__ import annotations` here: typer reads the annotations.
import base64
import hashlib
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import trio
import typer

from daemon import settings
from daemon.ctl import page
from daemon.ctl.client import Json
from daemon.ctl.operator import Operator, operating, reachable
from daemon.ctl.options import AsJson, config, tssd
from daemon.custody.hardening import become_owner_of
from daemon.custody.wire import EditPins, NewestPins, Pin, Pins, RenewPins, SignSuccession, Statement
from daemon.errors import Refused
from daemon.network.peers import load_pins, store_pins

T = TypeVar("T")

app = typer.Typer(help="The nodes whose identity keys are pinned.", no_args_is_help=True)

Node = Annotated[str, typer.Argument(metavar="NODE", help="What you call the other party's node.")]
Identity = Annotated[str, typer.Argument(metavar="IDENTITY", help="Its identity key: 66 hex digits.")]
Yes = Annotated[bool, typer.Option("--yes", help="You have compared the fingerprint; do not ask.")]


# ---- Through an operator's custodian ----


async def add(operator: Operator, node: str, identity: bytes, patterns: Sequence[str]) -> Pins:
    """Pin a further node; the list is signed, and is to be stored with `keep`.

    Args:
        operator: An operator's custodian.
        node: Its name, 1 to 64 of `[A-Za-z0-9._-]`.
        identity: Its identity key: P-256, compressed, 33 bytes.
        patterns: The party ids it speaks for, in which only `*` is special.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await operator.ask(
        EditPins(pins=None, action="add", node=node, identity=identity, patterns=tuple(patterns)), Pins
    )


async def replace(operator: Operator, node: str, identity: bytes, patterns: Sequence[str] = ()) -> Pins:
    """Pin another identity key for a node, and other party ids where some are given. As `add`."""
    if not patterns:
        patterns = next((pin.patterns for pin in (await newest(operator)).pins if pin.node == node), ("*",))
    return await operator.ask(
        EditPins(pins=None, action="replace", node=node, identity=identity, patterns=tuple(patterns)), Pins
    )


async def remove(operator: Operator, node: str) -> Pins:
    """Pin a node no more. As `add`."""
    return await operator.ask(EditPins(pins=None, action="remove", node=node, identity=None, patterns=()), Pins)


async def renew(operator: Operator, *, empty: bool = False) -> Pins:
    """Sign the list anew after our own identity key has changed; with `empty`, one without pins. As `add`."""
    return await operator.ask(RenewPins(empty=empty), Pins)


async def newest(operator: Operator) -> Pins:
    """The newest list that was signed, which the custodian keeps; number 0 before the first.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await operator.ask(NewestPins(), Pins)


def keep(database: Path, pins: Pins) -> bool:
    """Leave a signed list in the share store; whether it was not there already.

    Raises:
        Refused: There is no directory for the store, or it cannot be written.
    """
    try:
        if load_pins(database) == pins.signed:
            return False
        store_pins(database, pins)
    except OSError as error:
        raise Refused(f"{database}: {error.strerror}", "the list is signed; `tssctl peers verify` stores it") from None
    return True


# ---- Commands ----


@app.command(name="list")
def list_peers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pinned nodes, as tssd's custodian verifies them."""
    peers = tssd(context).get("/mpc-party/peers")
    if as_json:
        page.whole(peers)
        return
    _table(peers["peers"], none="no peers are pinned yet; pin them with `tssctl peers add`")


@app.command(name="show")
def show_peer(
    context: typer.Context,
    node: Annotated[str | None, typer.Argument(metavar="NODE", help="Without it: ourselves.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a node's identity, or our own.

    Ours is what the other parties' operators pin.
    """
    peers = tssd(context).get("/mpc-party/peers")
    if node is None:
        if not peers["identity"]:
            raise Refused("our identity is not known: the HSM is away, or has no keys", "tssctl hsm status")
        identity = bytes.fromhex(peers["identity"])
        shown = {"identity": peers["identity"], "fingerprint": hashlib.sha256(identity).hexdigest()}
    else:
        found = [peer for peer in peers["peers"] if peer["node"] == node]
        if not found:
            raise Refused(f"no node {node} is pinned", "tssctl peers list")
        shown = found[0]
    if as_json:
        page.whole(shown)
        return
    page.facts(
        [
            ("node", node or "this one"),
            ("identity", shown["identity"]),
            ("fingerprint", page.spelled(shown["fingerprint"])),
            ("speaks for", ", ".join(shown.get("partyIds", ()))),
        ]
    )


@app.command(name="add")
def add_peer(
    context: typer.Context,
    node: Node,
    identity: Identity,
    parties: Annotated[
        list[str], typer.Argument(metavar="PARTY...", help="Party ids it speaks for; `*` stands for anything.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Pin a node's identity key.

    Compare its fingerprint with its operator first, over a way that you trust.
    """
    key = _identity(identity)
    _compared(f"pin {node} for {', '.join(parties)}", key, yes=yes)
    _edit(context, lambda operator: add(operator, node, key, parties), as_json=as_json)


@app.command(name="replace")
def replace_peer(
    context: typer.Context,
    node: Node,
    identity: Identity,
    parties: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTY...]", help="Party ids it speaks for; without any, as before.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Pin another identity key for a node.

    For one whose old key is gone, or in other hands: compare the fingerprint again. Where the old key still vouches for
    the new one, `succeed` takes its word. Keys that were made with the node sign as before.
    """
    key = _identity(identity)
    _compared(f"replace the identity of {node}", key, yes=yes)
    _edit(context, lambda operator: replace(operator, node, key, parties or ()), as_json=as_json)


@app.command(name="remove")
def remove_peer(context: typer.Context, node: Node, as_json: AsJson = False) -> None:
    """Pin a node no more.

    There are no ceremonies with it from now on.
    """
    _edit(context, lambda operator: remove(operator, node), as_json=as_json)


@app.command(name="renew")
def renew_pins(
    context: typer.Context,
    empty: Annotated[
        bool, typer.Option("--empty", help="Begin with an empty list: pin everybody again, by fingerprint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sign the list of pins with our new key.

    After our own identity key has changed; until then there are no ceremonies. Look at what it prints: that is what you
    sign. The peers have to learn of the new key as well: `sign-succession`, or their `replace`.
    """
    pins = _edit(context, lambda operator: renew(operator, empty=empty), as_json=as_json)
    if not as_json:
        _table(_told(pins)["peers"], none="pin everybody again with `tssctl peers add`")


@app.command(name="verify")
def verify_peers(
    context: typer.Context,
    node: Annotated[str | None, typer.Argument(metavar="NODE", help="Also compare this node's fingerprint.")] = None,
    fingerprint: Annotated[
        list[str] | None, typer.Argument(metavar="[FINGERPRINT...]", help="As its operator reads it to you.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the list of pins, without tssd.

    And compare a fingerprint: exit code 1 where it is another one. Where the store lacks the newest list, it is put
    there.
    """
    database, pins = _with_custodian(context, newest)
    stored = bool(pins.number) and keep(database, pins)
    named = next((pin for pin in pins.pins if pin.node == node), None)
    if node is not None and named is None:
        raise Refused(f"no node {node} is pinned", "tssctl peers list")
    wanted = re.sub(r"[\s:]", "", "".join(fingerprint or ())).lower()
    same = None if named is None or not wanted else _fingerprint(named.identity) == wanted
    if as_json:
        page.whole(_told(pins) | {"stored": stored, "same": same})
    else:
        page.say(
            f"list {pins.number}: {len(pins.pins)} nodes, signed by our identity key" if pins.number else "no list"
        )
        if stored:
            page.say("it was not in the store, and is now")
        if named is not None:
            page.facts([("node", named.node), ("fingerprint", page.spelled(_fingerprint(named.identity)))])
        if same is not None:
            page.say("the same" if same else "NOT the same: do not talk to this node", style="" if same else "bold red")
    if same is False:
        raise typer.Exit(1)


@app.command(name="sign-succession")
def sign_succession(
    context: typer.Context,
    successor: Annotated[str, typer.Argument(metavar="IDENTITY", help="The new identity key: 66 hex digits.")],
    as_json: AsJson = False,
) -> None:
    """Name the successor of our identity key.

    The present key signs it, so run it while its HSM is there. The peers take what it prints with `succeed`.
    """
    key = _identity(successor)
    _, statement = _with_custodian(context, lambda operator: operator.ask(SignSuccession(successor=key), Statement))
    text = base64.b64encode(statement.data).decode()
    if as_json:
        page.whole({"statement": text})
    else:
        page.say(text)


@app.command(name="succeed")
def succeed(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(metavar="STATEMENT", help="What the peer's `sign-succession` printed.")],
    as_json: AsJson = False,
) -> None:
    """Take the successor of a peer's key.

    Its old key vouches for the new one. tssd does it. Not where the old key may be in other hands: `replace`.
    """
    peers = tssd(context).post("/mpc-party/peers/succession", {"statement": statement})
    if as_json:
        page.whole(peers)
    else:
        page.say(f"list {peers['number']} of pins is signed and stored")


def _with_custodian(context: typer.Context, act: Callable[[Operator], Awaitable[T]]) -> tuple[Path, T]:
    """Let an operator's custodian do something; also where the share store is, for which we are its owner from then."""
    path = config(context)
    read = settings.load(path)
    reachable(read.custodian.state_directory)
    reachable(read.service.state_directory)

    async def run() -> T:
        async with operating(path) as operator:
            return await act(operator)

    done = trio.run(run)
    become_owner_of(read.service.state_directory)
    return read.service.database, done


def _edit(context: typer.Context, act: Callable[[Operator], Awaitable[Pins]], *, as_json: bool) -> Pins:
    database, pins = _with_custodian(context, act)
    keep(database, pins)
    if as_json:
        page.whole(_told(pins))
    else:
        page.say(f"list {pins.number} of pins is signed and stored: {len(pins.pins)} nodes")
    return pins


def _table(peers: list[Json], none: str) -> None:
    page.table(
        ("NODE", "PARTIES", "FINGERPRINT"),
        ((peer["node"], ", ".join(peer["partyIds"]), page.spelled(peer["fingerprint"])) for peer in peers),
        none=none,
    )


def _told(pins: Pins) -> dict[str, Json]:
    def told(pin: Pin) -> dict[str, Json]:
        fingerprint = _fingerprint(pin.identity)
        return {
            "node": pin.node,
            "identity": pin.identity.hex(),
            "fingerprint": fingerprint,
            "partyIds": list(pin.patterns),
        }

    return {"number": pins.number, "peers": [told(pin) for pin in pins.pins]}


def _fingerprint(identity: bytes) -> str:
    return hashlib.sha256(identity).hexdigest()


def _identity(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter("an identity key is 66 hex digits", param_hint="IDENTITY") from None


def _compared(what: str, identity: bytes, *, yes: bool) -> None:
    """Have somebody say that this is the other party's key."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused("nobody is there to compare the fingerprint", "--yes says that you have compared it")
    page.note(f"fingerprint  {page.spelled(_fingerprint(identity))}")
    typer.confirm(f"Is it what the other operator reads to you? Then {what}", abort=True, err=True)
