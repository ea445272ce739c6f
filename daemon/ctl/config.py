"""`tssctl config`: whether config.toml can be used, what it lacks, and what in it weakens the system."""

# No `from __future__ import annotations` here: typer reads the annotations.
import grp
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from daemon import settings
from daemon.api.access import Access
from daemon.ctl import page
from daemon.ctl.options import AsJson, config
from daemon.custody.policy import PinCredential, PinFile
from daemon.errors import SettingsRefused
from daemon.settings import Settings

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: what --config names.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with config.toml, by line (exit code 78), and what in it weakens the system.

    The files that it names must be there (exit code 1); run it on the host that it is for.
    """
    path = config(context) if file is None else file.absolute()
    read = settings.load(path)
    missing, warned = list(lacks(path, read)), list(warnings(read))
    if as_json:
        page.whole({"config": str(path), "missing": missing, "warnings": warned})
    else:
        page.say(f"{path}: {'not yet' if missing else 'in order'}")
        for each in missing:
            page.say(f"  missing: {each}")
        for each in warned:
            page.say(f"  weaker than it could be: {each}")
    if missing:
        raise typer.Exit(1)


def lacks(path: Path, read: Settings) -> Iterator[str]:
    """What tssd or its custodian would not start without, as far as this host shows it to us."""
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield f"{path} may be written by others than its owner, so the custodian will not believe it: chmod go-w"
    for key, file in _files(read).items():
        try:
            there = file is None or file.exists()
        except PermissionError:
            continue  # not for us to see
        if not there:
            yield f"{key}: there is no {file}"
    try:
        Access(read.access, read.jwt)
    except SettingsRefused as refused:
        yield refused.message
    if read.service.group is not None:
        try:
            grp.getgrnam(read.service.group)
        except KeyError:
            yield f"service.group: this host has no group '{read.service.group}'"
    if read.custody.start == "connect" and read.custodian.peer_uid is None:
        yield "custodian.peer_uid: a custodian that tssd connects to must know tssd's uid (`id -u tssd`)"


def warnings(read: Settings) -> Iterator[str]:
    """What works and yet gives something away."""
    if not read.policy.require_expectations:
        yield "policy.require_expectations = false: the coordinator alone may choose key, threshold and committee"
    for name, other in (("coordinator", read.coordinator), ("router", read.router)):
        if other.allow_http and other.url.startswith("http://"):
            yield f"{name}.allow_http = true: whoever is in between can read and answer in its name"
    if read.custody.start == "spawn":
        yield "custody.start = \"spawn\": whoever captures tssd's user has the custodian's memory too"
    for committee in read.custodian.plain:
        shares = "; whoever reads the router's traffic of its keygens has its shares" if committee.keygen else ""
        yield f"custodian.plain: {', '.join(committee.parties)} talk unauthenticated{shares}"
    if read.custodian.recovery is None:
        yield "custodian.recovery is not set: shares are lost with the HSM"


def _files(read: Settings) -> dict[str, Path | None]:
    """The files that the settings name and somebody else makes."""
    recovery, pin = read.custodian.recovery, read.custodian.pin
    named = {
        "coordinator.tls.ca_file": read.coordinator.tls.ca_file,
        "coordinator.tls.certificate_file": read.coordinator.tls.certificate_file,
        "coordinator.tls.key_file": read.coordinator.tls.key_file,
        "router.tls.ca_file": read.router.tls.ca_file,
        "router.tls.certificate_file": read.router.tls.certificate_file,
        "router.tls.key_file": read.router.tls.key_file,
        "custodian.module_path": read.custodian.module_path,
        "custodian.recovery.public_key": None if recovery is None else recovery.public_key,
    }
    match pin:
        case PinFile(path=file):
            named["custodian.pin.path"] = file
        case PinCredential(file=file):
            named["custodian.pin.file"] = file
    return named
