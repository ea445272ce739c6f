"""`tssctl sessions`: the ceremonies this party took part in, and the ones under way, live."""

# No `from __future__ import annotations` here: typer reads the annotations.
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from daemon.ctl import page
from daemon.ctl.client import Json, Tssd
from daemon.ctl.options import AsJson, OfParty, SessionArgument, tssd
from daemon.errors import Refused
from daemon.session import SessionStatus, SessionType

WORDS: Final = {
    "offered": "accepted",
    "preparing": "looks for primes; a minute or two",
    "joining": "joins the coordinator's session",
    "agreed": "the session is the one that was asked for",
    "begun": "has its seat; waits for the other parties",
}
"""Steps that need no more said."""

app = typer.Typer(help="The ceremonies this party took part in.", no_args_is_help=True)


@app.command(name="list")
def list_sessions(
    context: typer.Context,
    status: Annotated[SessionStatus | None, typer.Option(help="Only in this status.")] = None,
    session_type: Annotated[SessionType | None, typer.Option("--type", help="Only of this type.")] = None,
    party: Annotated[str | None, typer.Option(metavar="PARTY", help="Only this party's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first."""
    sessions = tssd(context).pages(
        "/mpc-party/sessions",
        "sessions",
        ("before", "startedAt"),
        limit,
        status=status,
        type=session_type,
        partyId=party,
    )
    if as_json:
        page.whole(sessions)
        return
    page.table(
        ("SESSION", "PARTY", "TYPE", "STATUS", "STARTED (UTC)", "STANDS AT"),
        (
            (
                session["sessionId"],
                session["partyId"],
                session["type"],
                session["status"],
                page.moment(session["startedAt"]),
                _stands_at(session),
            )
            for session in sessions
        ),
        none="no such sessions",
    )


@app.command(name="show")
def show_session(
    context: typer.Context, session_id: SessionArgument, party: OfParty = None, as_json: AsJson = False
) -> None:
    """Show one session: where it stands, who is to blame, its result."""
    session = tssd(context).get(f"/mpc-party/sessions/{session_id}", partyId=party)
    if as_json:
        page.whole(session)
        return
    page.facts(
        [
            ("session", session["sessionId"]),
            ("party", session["partyId"]),
            ("type", session["type"]),
            ("status", session["status"]),
            ("stands at", _stands_at(session)),
            ("failed because", session["errorMessage"]),
            ("culprits", ", ".join(session["culprits"])),
            ("blamed by a peer", ", ".join(session["hearsay"])),
            ("public key", session["publicKey"] or ""),
            ("share", session["shareId"] or ""),
            ("message hash", session["messageHash"] or ""),
            ("signature", session["signature"] or ""),
            ("recovery id", "" if session["recoveryId"] is None else str(session["recoveryId"])),
            ("started (UTC)", page.moment(session["startedAt"])),
            ("completed (UTC)", page.moment(session["completedAt"])),
        ]
    )


@app.command(name="watch")
def watch_session(
    context: typer.Context, session_id: SessionArgument, party: OfParty = None, as_json: AsJson = False
) -> None:
    """Follow a session, round by round, to its end; with --json a line for each step.

    The exit code is 0 where it completes, 1 where it fails or times out.
    """
    watch(tssd(context), session_id, party, as_json=as_json)


@app.command(name="confirmations")
def show_confirmations(
    context: typer.Context,
    session_id: SessionArgument,
    party: OfParty = None,
    take: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="First take in the statements of FILE: what this command, with --json, prints at another party.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who has confirmed the share that a keygen made. A complete set makes it active.

    Confirmations come over the router by themselves; where they cannot, they may be carried by hand.
    """
    at, path = tssd(context), f"/mpc-party/sessions/{session_id}/confirmations"
    if take is None:
        held = at.get(path, partyId=party)
    else:
        body = {"statements": _statements(take)} | ({} if party is None else {"partyId": party})
        held = at.post(path, body)
    if as_json:
        page.whole(held)
        return
    page.facts([("session", held["sessionId"]), ("party", held["partyId"]), ("share", held["shareId"])])
    rows = [(name, "yes") for name in held["confirmed"]] + [(name, "no") for name in held["missing"]]
    page.table(("PARTY", "CONFIRMED"), rows, none="nobody has confirmed it")


def watch(at: Tssd, session_id: str, party: str | None, *, as_json: bool) -> None:
    """Print a session's steps as they come, then its result; leaves with exit code 1 where there is none."""
    if as_json:
        for step in at.steps(session_id, party):
            page.line(step)
    else:
        _show_steps(at.steps(session_id, party))
    session = at.get(f"/mpc-party/sessions/{session_id}", partyId=party)
    if not as_json:
        page.facts(
            [
                ("public key", session["publicKey"] or ""),
                ("signature", session["signature"] or ""),
                ("recovery id", "" if session["recoveryId"] is None else str(session["recoveryId"])),
                ("culprits", ", ".join(session["culprits"])),
            ]
        )
    if session["status"] != SessionStatus.COMPLETED:
        raise typer.Exit(1)


def _show_steps(steps: Iterator[Json]) -> None:
    """A line for each step; on a terminal, with a bar of rounds under them while they go on."""
    screen = page.console()
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)
        for step in steps:
            screen.print(Text(f"{page.moment(step['at'])}  {_words(step)}"), soft_wrap=True)
            bar.update(
                task, description=_words(step), total=step["detail"].get("rounds"), completed=step["round"] or None
            )


def _words(step: Json) -> str:
    """A step of the journal in a few words."""
    name, detail = step["step"], step["detail"]
    match name:
        case "preparing" if "preparedId" in detail:
            words = "takes its pre-parameters"
        case "nonce_spent" | "round":
            waits = ", ".join(detail.get("waitsFor", ()))
            words = f"round {step['round']} of {detail.get('rounds', '?')}" + (f", waits for {waits}" if waits else "")
        case "pending":
            words = f"share {detail.get('shareId', '')} is stored; the others confirm"
        case "confirmed":
            words = f"confirmed by {detail.get('by', '')}"
        case "failed" | "timeout":
            words = f"{name}: {detail.get('message', '')}"
        case _:
            words = WORDS.get(name, name)
    return words


def _stands_at(session: Json) -> str:
    if session["status"] != SessionStatus.IN_PROGRESS:
        return session["reason"] or "-"
    where = f"round {session['round']} of {session['rounds'] or '?'}" if session["round"] else session["step"]
    waits = session["waitsFor"]
    return f"{where}, waits for {', '.join(waits)}" if waits else where


def _statements(file: Path) -> list[str]:
    try:
        statements = json.loads(file.read_text())["statements"]
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}", "see --take") from None
    except (ValueError, KeyError, TypeError):
        raise Refused(
            f"{file} is not what `tssctl sessions confirmations --json` prints", "have it printed at another party"
        ) from None
    return [str(statement) for statement in statements]
