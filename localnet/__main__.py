"""`tssd-localnet`: n real parties on this machine make a key and sign with it, and a person can watch them do it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pwd
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import httpx
import trio
import typer
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from localnet.net import Net, SessionFailed, open_net, plainly
from localnet.party import ARENA_MIB, MEBIBYTE, PartyFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

KINDS: Final = ("server", "mobile", "backup")
THROWAWAY_UIDS: Final = range(61184, 65520)
"""systemd's range for users that exist only while they run."""
SIGNED_MESSAGE: Final = "pay 1 coin to Carol"
"""Part of what is signed; each pair adds its own names."""


INTERRUPTED: Final = 128 + signal.SIGINT
TELL_SECONDS: Final = 10.0
"""Between two lines of progress, where nobody sees it live."""
RESTARTS_SECONDS: Final = 1.0
RESTARTS: Final = re.compile(r"^tssd_custodian_restarts (\S+)$", re.MULTILINE)


class Page:
    """What the person sees. whole: all of it is there."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.whole = False
        self._began = time.monotonic()
        self._section = 0

    def section(self, title: str) -> None:
        """A numbered heading."""
        self._section += 1
        self.console.print(f"\n[bold cyan]{self._section}. {title}[/]")

    def line(self, text: str) -> None:
        """A sentence under the heading."""
        self.console.print(f"   {text}", soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since the page was begun."""
        return time.monotonic() - self._began


class Rounds:
    """A line for each party of a ceremony: which step, which round."""

    def __init__(self, party_ids: Sequence[str]) -> None:
        self._words = dict.fromkeys(party_ids, "asked")
        self._squares = dict.fromkeys(party_ids, "")
        self._preparing: set[str] = set()

    def saw(self, party_id: str, step: dict[str, Any]) -> None:
        """Take one step of the progress stream."""
        words, squares = step["step"].replace("_", " "), ""
        rounds = step["detail"].get("rounds")
        if step["step"] == "round" and rounds:
            words = f"round {step['round']} of {rounds}"
            squares = "\N{BLACK SQUARE}" * step["round"] + "\N{WHITE SQUARE}" * (rounds - step["round"])
        self._words[party_id], self._squares[party_id] = words, squares
        (self._preparing.add if step["step"] == "preparing" else self._preparing.discard)(party_id)

    def preparing(self) -> list[str]:
        """The parties that search for primes now."""
        return sorted(self._preparing)

    def note(self, party_id: str, words: str) -> None:
        """Say more of a party's step."""
        if party_id in self._preparing:
            self._words[party_id] = f"looks for primes: {words}" if words else "looks for primes"

    def plainly(self) -> str:
        """All of it as one line of text."""
        return "; ".join(f"{party_id}: {words}" for party_id, words in self._words.items())

    def __rich__(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 3))
        for party_id, words in self._words.items():
            table.add_row(party_id, f"{words}  [cyan]{self._squares[party_id]}[/]")
        return table


async def show(net: Net, page: Page, threshold: int) -> str:
    """Make a key, sign with every choice of signers, verify with OpenSSL; gives the public key, hex.

    Raises:
        SessionFailed: A ceremony did not complete, or a signature does not verify.
    """
    parties = list(net.parties)
    page.section(f"A key of {len(parties)} parties, of which {threshold} sign")
    page.line("Each makes its own part of the key; the whole key is never anywhere.")
    began = time.monotonic()
    public_key = await watched(net, page, parties, partial(net.keygen, threshold))
    page.line(f"public key  [bold]{public_key}[/]  [dim]{time.monotonic() - began:.1f} s[/]")
    for party in net.parties.values():
        async with party.client() as client:
            (share,) = (await client.get("/mpc-party/shares")).raise_for_status().json()["shares"]
        page.line(f"{party.party_id} holds share {share['id']}, {share['threshold']}, {share['status']}")

    page.section("Signatures, by every choice of signers, verified by OpenSSL")
    for signers in itertools.combinations(parties, threshold):
        message = f"{SIGNED_MESSAGE}, say {' and '.join(signers)}".encode()
        message_hash = hashlib.sha256(message).hexdigest()
        began = time.monotonic()
        signature = await watched(net, page, signers, partial(net.sign, public_key, signers, message_hash))
        seconds = time.monotonic() - began
        verdict = await trio.to_thread.run_sync(openssl_verify, public_key, signature, message)
        other = await trio.to_thread.run_sync(openssl_verify, public_key, signature, message + b"!")
        if verdict != "Verified OK" or other == "Verified OK":
            raise SessionFailed(f"OpenSSL says of the signature of {' and '.join(signers)}: {verdict}, {other}")
        page.line(f"[bold]{' + '.join(signers)}[/]  [dim]{seconds:.1f} s[/]")
        page.line(f"  r  {signature[:64]}")
        page.line(f"  s  {signature[64:]}")
        page.line(f"  openssl dgst -sha256 -verify  [green]{verdict}[/]; for another message: {other}")
    return public_key


def offer(net: Net, page: Page, public_key: str, threshold: int) -> None:
    """Say what a person may do with a network that stays up. The lines can be pasted."""
    page.section("The network stays up until Ctrl-C. Meanwhile, in another terminal")
    tssctl = Path(sys.executable).parent / "tssctl"
    first, *others = net.parties.values()
    page.line(f"export TSSCTL_SOCKET={first.socket}  [dim]# or {', '.join(other.party_id for other in others)}[/]")
    for command in ("status", "shares list", "sessions list", "events", "audit verify", "--help"):
        page.line(f"{tssctl} {command}")
    page.line(f"curl --unix-socket {first.socket} http://tssd/mpc-party/shares")
    offer_keygen(net, page, tssctl, threshold)
    offer_signing(net, page, tssctl, public_key, threshold)


def offer_keygen(net: Net, page: Page, tssctl: Path, threshold: int) -> None:
    """A key by hand: the first party is asked as a program asks it, the others as a person does."""
    made = net.coordinator.create_keygen(list(net.parties), threshold)
    page.line(
        "\n   A key by hand: its session waits at the coordinator for all of these, within two minutes of each other"
    )
    (first, join_token), *others = made.join_tokens.items()
    body = {
        "sessionId": made.session_id,
        "partyId": first,
        "joinToken": join_token,
        "shareType": "wallet",
        "threshold": threshold,
        "parties": list(net.parties),
    }
    socket = net.parties[first].socket
    asked = escape(json.dumps(body))
    page.line(f"curl --unix-socket {socket} http://tssd/mpc-party/keygen/participate \\\n     --json '{asked}'")
    members = " ".join(f"--member {party_id}" for party_id in net.parties)
    for party_id, token in others:
        party = net.parties[party_id]
        file = party.directory / "keygen-token"
        file.write_text(token)
        page.line(
            f"{tssctl} --socket {party.socket} keygen participate {made.session_id} --party {party_id} \\\n"
            f"     --threshold {threshold} {members} --join-token-file {file}"
        )
    page.line(f"{tssctl} sessions watch {made.session_id}")


def offer_signing(net: Net, page: Page, tssctl: Path, public_key: str, threshold: int) -> None:
    """A signature by hand."""
    message_hash = hashlib.sha256(SIGNED_MESSAGE.encode()).hexdigest()
    signers = list(net.parties)[:threshold]
    session = net.coordinator.create_signing(public_key, signers, message_hash)
    page.line(
        "\n   A signature by hand: its session waits at the coordinator for all of these, within a minute of each other"
    )
    for party_id, join_token in session.join_tokens.items():
        party = net.parties[party_id]
        token = party.directory / "join-token"
        token.write_text(join_token)
        page.line(
            f"{tssctl} --socket {party.socket} sign participate {session.session_id} --party {party_id} \\\n"
            f"     --hash {message_hash} \\\n     --public-key {public_key} --join-token-file {token}"
        )
    page.line(f"{tssctl} sessions watch {session.session_id}")


async def watched(net: Net, page: Page, parties: Sequence[str], ceremony: Callable[[], Awaitable[str]]) -> str:
    """Run a ceremony while its steps are shown: as they come on a terminal, else by a line now and then."""
    rounds = Rounds(parties)
    net.on_step = rounds.saw
    live = Live(rounds, console=page.console, transient=True, refresh_per_second=8)
    async with trio.open_nursery() as nursery:
        with live if page.console.is_terminal else contextlib.nullcontext():
            nursery.start_soon(watch_notes, net, rounds)
            if not page.console.is_terminal:
                nursery.start_soon(tell_now_and_then, page, rounds)
            result = await ceremony()
            nursery.cancel_scope.cancel()
    return result


async def tell_now_and_then(page: Page, rounds: Rounds) -> None:
    """For whoever reads a log or a pipe."""
    began = trio.current_time()
    while True:
        await trio.sleep(TELL_SECONDS)
        page.line(f"... {trio.current_time() - began:.0f} s  {rounds.plainly()}")


async def tell_restarts(net: Net, page: Page) -> None:
    """Say when a custodian had to be started again: what it was busy with fails, and why is in its party's log."""
    told = dict.fromkeys(net.parties, 0)
    while True:
        for party_id, party in net.parties.items():
            with contextlib.suppress(httpx.TransportError):  # its daemon is gone: that is told by others
                async with party.client() as client:
                    figures = (await client.get("/metrics")).text
                found = RESTARTS.search(figures)
                count = int(float(found[1])) if found else 0
                if count > told[party_id]:
                    told[party_id] = count
                    page.line(f"[yellow]the custodian of {party_id} was started again[/]; {party.log} says why")
        await trio.sleep(RESTARTS_SECONDS)


async def watch_notes(net: Net, rounds: Rounds) -> None:
    """Show what a party is busy with before its ceremony begins: the search for primes takes a while."""
    while True:
        for party_id in rounds.preparing():
            async with net.parties[party_id].client() as client:
                notes = (await client.get("/mpc-party/ready")).json()["notes"]
            rounds.note(party_id, next((note for note in notes if note.startswith("pre-parameters")), ""))
        await trio.sleep(0.5)


def openssl_verify(public_key: str, signature: str, message: bytes) -> str:
    """What the `openssl` command says of a signature over a message."""
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), bytes.fromhex(public_key))
    r, s = int(signature[:64], 16), int(signature[64:], 16)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (directory / "signature.der").write_bytes(utils.encode_dss_signature(r, s))
        (directory / "message").write_bytes(message)
        command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature.der", "message"]
        ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603  fixed arguments; the openssl of the PATH
    return (ran.stdout or ran.stderr).splitlines()[0]


async def demonstrate(directory: Path, count: int, threshold: int, *, stay: bool, page: Page) -> None:
    """Everything, from an empty directory to a page of results."""
    page.console.print("[bold]tssd[/]: one wallet key, held by several parties, whole nowhere")
    party_ids = [f"demo-{KINDS[index] if index < len(KINDS) else f'party{index + 1}'}" for index in range(count)]
    page.section(f"{count} parties on this machine")
    status = page.console.status("making the network ...")
    async with contextlib.AsyncExitStack() as stack:
        with status:
            network = open_net(directory, party_ids, told=lambda what: status.update(f"making {what} ..."))
            net = await stack.enter_async_context(network)
        for party in net.parties.values():
            pid = party.process.pid if party.process else 0
            fingerprint = hashlib.sha256(party.identity).hexdigest()[:16]
            page.line(f"[bold]{party.party_id}[/]  process {pid}, HSM token of its own, identity {fingerprint}...")
        page.line(f"coordinator {net.coordinator_url}, router {net.router_url}, both untrusted")
        watching = await stack.enter_async_context(trio.open_nursery())
        watching.start_soon(tell_restarts, net, page)
        public_key = await show(net, page, threshold)
        traffic = net.router.traffic
        page.section("What the router saw")
        page.line(f"{traffic.delivered} frames, {traffic.octets / 1e6:.1f} MB, every one sealed for its receiver")
        page.whole = True
        if stay:
            offer(net, page, public_key, threshold)
            await trio.sleep_forever()
        watching.cancel_scope.cancel()


async def until_stopped(directory: Path, count: int, threshold: int, *, stay: bool, console: Console) -> bool:
    """The demonstration, broken off in good order by a signal; whether all of it was shown."""
    page = Page(console)
    receiver = trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with receiver as signals, plainly(PartyFailed, SessionFailed):
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    page.line("Stopping ...")
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await demonstrate(directory, count, threshold, stay=stay, page=page)
            nursery.cancel_scope.cancel()
    page.line(f"[green]All stopped.[/] [dim]{page.seconds:.0f} s in all.[/] Read on in README.md.")
    return page.whole


def step_down(directory: Path) -> None:
    """Started by root: start again as a throw-away user, who owns nothing but the directory. Does not return then."""
    if os.geteuid() != 0:
        return
    known = {user.pw_uid for user in pwd.getpwall()}
    uid = secrets.choice([number for number in THROWAWAY_UIDS if number not in known])
    os.chown(directory, uid, uid)
    with contextlib.suppress(OSError, ValueError):  # a container's root may not raise it; then the arena is smaller
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (2 * ARENA_MIB * MEBIBYTE, 2 * ARENA_MIB * MEBIBYTE))
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    python = [sys.executable, "-I", "-m", "localnet"]
    # Where this program lies in root's own home, nobody else could start it. Only a process's own child shows that, for
    # setpriv itself still has root's rights when it starts the first.
    trial = f"import subprocess; raise SystemExit(subprocess.call({[*python, '--help']!r}, stdout=-3))"
    if subprocess.run([*become, sys.executable, "-I", "-c", trial], capture_output=True, check=False).returncode:  # noqa: S603  fixed arguments
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    environment = os.environ | {"HOME": str(directory)}
    os.execvpe(become[0], [*become, *python, *sys.argv[1:], "--directory", str(directory)], environment)  # noqa: S606  no shell is wanted


def run(
    parties: Annotated[int, typer.Option(min=2, max=9, help="How many parties hold the key.")] = 3,
    threshold: Annotated[int, typer.Option(min=2, max=9, help="How many of them sign.")] = 2,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the network up afterwards, until Ctrl-C.")] = False,  # noqa: FBT002  a flag of the command line
    directory: Annotated[
        Path | None,
        typer.Option(help="An empty directory to work in; removed at the end.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Start real parties on this machine, make a key, sign with it, verify, and leave nothing behind."""
    console = Console(highlight=False)
    if threshold > parties:
        raise typer.BadParameter("there are fewer parties than that", param_hint="--threshold")
    if directory is not None and any(directory.iterdir()):
        raise typer.BadParameter("it must be empty, for it is removed at the end", param_hint="--directory")
    place = directory or Path(tempfile.mkdtemp(prefix="tssd-localnet-"))
    try:
        step_down(place)
        whole = trio.run(partial(until_stopped, place, parties, threshold, stay=stay, console=console))
    except (PartyFailed, SessionFailed) as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(1) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def main() -> None:
    """The command `tssd-localnet`."""
    typer.run(run)


if __name__ == "__main__":
    main()
