"""`tssctl config`: whether config.toml can be used, and what in it weakens the system."""

# No `from __future__ import annotations` here: typer reads the annotations.
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from daemon import settings
from daemon.ctl import page
from daemon.ctl.options import AsJson, config
from daemon.settings import Settings

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: what --config names.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with config.toml, by line (exit code 78), and what in it weakens the system."""
    path = config(context) if file is None else file.absolute()
    warned = list(warnings(settings.load(path)))
    if as_json:
        page.whole({"config": str(path), "warnings": warned})
        return
    page.say(f"{path}: in order")
    for warning in warned:
        page.say(f"  weaker than it could be: {warning}")


def warnings(read: Settings) -> Iterator[str]:
    """What works and yet gives something away."""
    if not read.policy.require_expectations:
        yield "policy.require_expectations = false: the coordinator alone may choose key, threshold and committee"
    for name, other in (("coordinator", read.coordinator), ("router", read.router)):
        if other.allow_http and other.url.startswith("http://"):
            yield f"{name}.allow_http = true: whoever is in between can read and answer in its name"
    if read.custody.start == "spawn":
        yield "custody.start = \"spawn\": whoever captures tssd's user has the custodian's memory too"
    elif read.custodian.peer_uid is None:
        yield "custodian.peer_uid is not set: the custodian of systemd's socket will not start without it"
    for committee in read.custodian.plain:
        shares = "; whoever reads the router's traffic of its keygens has its shares" if committee.keygen else ""
        yield f"custodian.plain: {', '.join(committee.parties)} talk unauthenticated{shares}"
    if read.custodian.recovery is None:
        yield "custodian.recovery is not set: shares are lost with the HSM"
