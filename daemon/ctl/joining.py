"""What taking part in a keygen and in a signing have in common: our party, and the coordinator's join token."""

# No `from __future__ import annotations` here: typer reads the annotations.
import sys
from pathlib import Path
from typing import Annotated

import typer

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
