"""`tssctl`: looks at tssd, starts ceremonies, and does what only an operator at a terminal may."""

# No `from __future__ import annotations` here: typer reads the annotations.
import json
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from daemon import errors
from daemon.ctl import audit, config, events, hsm, keygen, peers, sessions, shares, signing, status
from daemon.ctl.client import PROBLEM_TYPE, Answered, NotListening
from daemon.ctl.options import CONFIG, SOCKET, Options
from daemon.errors import DaemonError

USAGE: Final = 2
UNAVAILABLE: Final = 69
DEFECT: Final = 70
BUSY: Final = 75
NOT_PERMITTED: Final = 77
CODES: Final = {
    "not-listening": UNAVAILABLE,
    "custody-lost": UNAVAILABLE,
    "unreachable": UNAVAILABLE,
    "audit-unwritable": UNAVAILABLE,
    "broken": DEFECT,
    "busy": BUSY,
    "not-permitted": NOT_PERMITTED,
    "unauthenticated": NOT_PERMITTED,
}
"""Exit codes by the kind of a refusal; 1 for the others."""

EPILOG: Final = """\b
Exit codes:
  0    done; of `status`: able to sign; of a watched session: completed
  1    refused, or not so: unknown share, failed session, audit log not whole
  2    the command line is wrong
  69   tssd is not listening, or its custodian or HSM is away
  70   a defect of tssd
  75   busy: try again
  77   your role does not allow it
  78   the configuration cannot be used
  130  interrupted
Errors go to standard error, with --json as problem documents (RFC 9457).
"""

app = typer.Typer(
    name="tssctl",
    help="Looks at tssd, starts ceremonies, and does what only an operator at a terminal may.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def show_version(wanted: bool) -> None:
    """Answer `--version`, which needs no command."""
    if wanted:
        print(f"tssctl {version('tssd')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    socket: Annotated[Path, typer.Option(envvar="TSSCTL_SOCKET", readable=False, help="Where tssd listens.")] = SOCKET,
    config_file: Annotated[
        Path,
        typer.Option(
            "--config", envvar="TSSCTL_CONFIG", readable=False, help="For commands that do not go through tssd."
        ),
    ] = CONFIG,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TSSCTL_TOKEN_FILE", readable=False, help="File with the bearer token, where tssd asks for one."
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Remember where tssd is."""
    context.obj = Options(socket, config_file, token_file)


app.command(name="status")(status.show_status)
app.command(name="health")(status.show_health)
app.add_typer(shares.app, name="shares")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keygen.app, name="keygen")
app.add_typer(signing.app, name="sign")
app.command(name="events")(events.list_events)
app.add_typer(peers.app, name="peers")
app.add_typer(peers.app, name="peer", hidden=True)
app.add_typer(hsm.app, name="hsm")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")


def exit_code(error: DaemonError) -> int:
    """The exit code that tells this error, as the help says."""
    if isinstance(error, Answered | NotListening) or error.kind in CODES:
        return CODES.get(error.kind, 1)
    return errors.exit_code(error)


def complain(error: DaemonError, *, as_json: bool) -> None:
    """Say what went wrong and what to do next, on standard error."""
    if as_json:
        document = {
            "type": f"{PROBLEM_TYPE}{error.kind}",
            "title": error.kind.replace("-", " ").capitalize(),
            "detail": error.message,
            "remedy": error.remedy,
        }
        print(json.dumps(dict(error.document) if isinstance(error, Answered) else document), file=sys.stderr)
        return
    remedy = f"\n  -> {error.remedy}" if error.remedy else ""
    print(f"tssctl: {error.message}{remedy}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `tssctl`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What libraries would log is told by the errors they raise.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        app(given, prog_name="tssctl")
    except DaemonError as error:
        complain(error, as_json="--json" in given)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
