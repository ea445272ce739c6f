"""`tssctl events`: the domain events, for consumers that poll and people who look."""

# No `from __future__ import annotations` here: typer reads the annotations.
import time
from typing import Annotated, Final

import typer

from daemon.ctl import page
from daemon.ctl.options import AsJson, tssd

POLL_SECONDS: Final = 1.0
SHOWN: Final = ("sessionId", "partyId", "shareId", "publicKey", "messageHash", "signature")


def list_events(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, help="Only those after this number.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones, until interrupted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the domain events, oldest first; with --json a line for each.

    A consumer goes on with --after and the number of the last one that it took.
    """
    at, last = tssd(context), after
    while True:
        for event in at.pages("/mpc-party/events", "events", ("after", "number"), limit, after=last):
            last = event["number"]
            if as_json:
                page.line(event)
            else:
                told = event["event"]
                values = "  ".join(f"{name} {told[name]}" for name in SHOWN if name in told)
                page.say(f"{last}  {page.moment(told.get('occurredAt'))}  {told['type']}  {values}")
        if not follow:
            return
        time.sleep(POLL_SECONDS)
