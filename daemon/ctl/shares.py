"""`tssctl shares`: what this party holds, never the shares' data."""

# No `from __future__ import annotations` here: typer reads the annotations.
from typing import Annotated

import typer

from daemon.ctl import page
from daemon.ctl.options import AsJson, ShareArgument, tssd
from daemon.share import ShareStatus
from daemon.values import ShareType

app = typer.Typer(help="The shares this party holds.", no_args_is_help=True)


@app.command(name="list")
def list_shares(
    context: typer.Context,
    party: Annotated[str | None, typer.Option(metavar="PARTY", help="Only this party's.")] = None,
    public_key: Annotated[str | None, typer.Option(metavar="HEX", help="Only those of this key.")] = None,
    share_type: Annotated[ShareType | None, typer.Option("--type", help="Only of this type.")] = None,
    status: Annotated[ShareStatus | None, typer.Option(help="Only in this status.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """List shares, in the order of their ids."""
    shares = tssd(context).pages(
        "/mpc-party/shares",
        "shares",
        ("after", "id"),
        limit,
        partyId=party,
        publicKey=public_key,
        shareType=share_type,
        status=status,
    )
    if as_json:
        page.whole(shares)
        return
    page.table(
        ("SHARE", "PARTY", "TYPE", "PUBLIC KEY", "SIGN", "STATUS", "LAST USED (UTC)"),
        (
            (
                share["id"],
                share["partyId"],
                share["shareType"],
                share["publicKey"],
                share["threshold"],
                share["status"],
                page.moment(share["lastUsedAt"]),
            )
            for share in shares
        ),
        none="no such shares",
        cut=("PUBLIC KEY",),
    )


@app.command(name="show")
def show_share(context: typer.Context, share_id: ShareArgument, as_json: AsJson = False) -> None:
    """Show one share."""
    share = tssd(context).get(f"/mpc-party/shares/{share_id}")
    if as_json:
        page.whole(share)
        return
    page.facts(
        [
            ("share", share["id"]),
            ("status", share["status"]),
            ("party", share["partyId"]),
            ("type", share["shareType"]),
            ("public key", share["publicKey"]),
            ("threshold", share["threshold"]),
            ("committee", ", ".join(f"{seat['seat']} {seat['partyId']}" for seat in share["committee"])),
            ("protocol", f"{share['protocol']}, channel {share['channel']}"),
            ("generation", str(share["generation"])),
            ("made by session", share["sessionId"]),
            ("created (UTC)", page.moment(share["createdAt"])),
            ("last used (UTC)", page.moment(share["lastUsedAt"])),
        ]
    )


@app.command(name="quarantine")
def quarantine_share(context: typer.Context, share_id: ShareArgument, as_json: AsJson = False) -> None:
    """Wait no longer for peers that do not confirm a pending share. It is set aside, not deleted.

    The other parties do not hear of it. Should the missing confirmations come, it becomes active all the same.
    """
    share = tssd(context).post(f"/mpc-party/shares/{share_id}/quarantine")
    if as_json:
        page.whole(share)
    else:
        page.say(f"share {share['id']} is {share['status']}")
