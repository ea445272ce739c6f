"""What taking part in a keygen and in a signing have in common: our party, and the coordinator's join token."""

# No `from __future__ import annotations` here: typer reads the annotations.
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from daemon.ctl import page, sessions
from daemon.ctl.client import Json, Tssd
from daemon.errors import Refused

OurParty = Annotated[str, typer.Option("--party", metavar="PARTY", help="Which party of ours takes part.")]
JoinTokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        allow_dash=True,
        help="Holds the join token; - is standard input. Without it the token is asked for.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the session to its end.")]


def join_token(file: Path | None) -> str:
    """The join token, out of a file or typed without echo.

    Raises:
        Refused: There is none.
    """
    try:
        if file is not None:
            token = sys.stdin.read() if str(file) == "-" else file.read_text()
        elif sys.stdin.isatty():
            token = typer.prompt("Join token", hide_input=True, err=True)
        else:
            raise Refused("there is nobody to type the join token", "name its file with --join-token-file")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: {error}", "see --join-token-file") from None
    return str(token).strip()


def participate(at: Tssd, path: str, body: Mapping[str, Json], *, watch: bool, as_json: bool) -> None:
    """Ask tssd to take part, and tell its answer, or follow the session to its end."""
    accepted = at.post(path, body)
    if watch:
        sessions.watch(at, str(body["sessionId"]), str(body["partyId"]), as_json=as_json)
    elif as_json:
        page.whole(accepted)
    else:
        page.say(f"{accepted['message']}; follow it: tssctl sessions watch {accepted['sessionId']}")
