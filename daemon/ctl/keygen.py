"""`tssctl keygen`: take part in making a key."""

# No `from __future__ import annotations` here: typer reads the annotations.
from typing import Annotated

import typer

from daemon.ctl import joining
from daemon.ctl.joining import JoinTokenFile, OurParty, Watch, join_token
from daemon.ctl.options import AsJson, tssd
from daemon.values import ShareType

app = typer.Typer(help="Take part in making a key.", no_args_is_help=True)


@app.command()
def participate(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="The coordinator's session.")],
    party: OurParty,
    share_type: Annotated[ShareType, typer.Option("--type", help="What the share is for.")] = ShareType.WALLET,
    threshold: Annotated[int | None, typer.Option(min=2, help="How many parties sign: what you expect.")] = None,
    parties: Annotated[
        list[str] | None, typer.Option("--member", metavar="PARTY", help="Each party, ours too: what you expect.")
    ] = None,
    join_token_file: JoinTokenFile = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Take part in a keygen that the coordinator holds. It is accepted at once; `sessions watch` follows it.

    The join token is read from a file or typed, never taken from the command line, where everybody could read it.
    """
    expected = {"threshold": threshold, "parties": parties or None}
    body = {
        "sessionId": session_id,
        "partyId": party,
        "joinToken": join_token(join_token_file),
        "shareType": share_type,
        **{name: value for name, value in expected.items() if value is not None},
    }
    joining.participate(tssd(context), "/mpc-party/keygen/participate", body, watch=watch, as_json=as_json)
