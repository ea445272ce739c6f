"""What every command of tssctl is told before its name, and the options that many have."""

# No `from __future__ import annotations` here: typer reads the annotations.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from daemon.ctl.client import Tssd


@dataclass(frozen=True)
class Options:
    """Where tssd listens, where its configuration is, and the bearer token it may ask for."""

    socket: Path
    config: Path
    token_file: Path | None


def tssd(context: typer.Context) -> Tssd:
    """The daemon that a command is for."""
    options = _options(context)
    return Tssd(options.socket, options.token_file)


def config(context: typer.Context) -> Path:
    """The configuration that a command is for, as an absolute path."""
    return _options(context).config.absolute()


def _options(context: typer.Context) -> Options:
    options = context.find_object(Options)
    assert options is not None  # noqa: S101  narrows the type: the callback of __main__.py puts it there
    return options


def _suggest(context: typer.Context, path: str, key: str, field: str) -> list[str]:
    """Values for the shell to complete with, from a daemon that answers; otherwise none."""
    given = context.find_root().params.get("socket")
    try:
        found = Tssd(Path(given or SOCKET)).get(path)[key]
    except Exception:  # noqa: BLE001  in the middle of somebody's command line there is nobody to tell
        return []
    return list(dict.fromkeys(entry[field] for entry in found))


def _shares(context: typer.Context, incomplete: str) -> list[str]:
    found = _suggest(context, "/mpc-party/shares", "shares", "id")
    return [share for share in found if share.startswith(incomplete)]


def _sessions(context: typer.Context, incomplete: str) -> list[str]:
    found = _suggest(context, "/mpc-party/sessions", "sessions", "sessionId")
    return [session for session in found if session.startswith(incomplete)]


SOCKET = Path("/run/tssd/tssd.sock")
CONFIG = Path("/etc/tssd/config.toml")
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
ShareArgument = Annotated[str, typer.Argument(metavar="SHARE", help="Id of the share.", autocompletion=_shares)]
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.", autocompletion=_sessions)]
OfParty = Annotated[
    str | None, typer.Option("--party", metavar="PARTY", help="Which of our parties, where several are in the session.")
]
