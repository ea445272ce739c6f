"""`tssctl audit`: every decision and every use of a share, and whether the log of them is whole."""

# No `from __future__ import annotations` here: typer reads the annotations.
import json
from typing import Annotated

import typer

from daemon.ctl import page
from daemon.ctl.options import AsJson, tssd

app = typer.Typer(help="The log of decisions and uses of shares.", no_args_is_help=True)


@app.command(name="list")
def list_rows(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, help="Only rows after this number.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """List rows, oldest first."""
    rows = tssd(context).pages("/mpc-party/audit", "rows", ("after", "number"), limit, after=after)
    if as_json:
        page.whole(rows)
        return
    page.table(
        ("ROW", "AT (UTC)", "WHO", "DID", "ABOUT"),
        (
            (
                str(row["number"]),
                page.moment(row["at"]),
                row["actor"],
                row["action"],
                json.dumps(row["subject"], ensure_ascii=False),
            )
            for row in rows
        ),
        none="no rows",
    )


@app.command()
def verify(context: typer.Context, as_json: AsJson = False) -> None:
    """Walk the whole log, its chain and its signed checkpoints. Exit code 1 where it is not whole."""
    verdict = tssd(context).post("/mpc-party/audit/verify")
    if as_json:
        page.whole(verdict)
    else:
        covered = f"{verdict['checkpoints']} signed, the last over row {verdict['lastCheckpoint']}"
        page.facts(
            [
                ("audit log", "whole" if verdict["whole"] else "broken"),
                ("problem", verdict["problem"]),
                ("rows", str(verdict["rows"])),
                ("checkpoints", covered if verdict["checkpoints"] else "none yet"),
            ]
        )
        if not verdict["whole"]:
            page.say("The store was changed behind tssd's back: keep a copy of it, and compare with a backup.")
    if not verdict["whole"]:
        raise typer.Exit(1)
