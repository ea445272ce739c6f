"""`tssctl sign`: take part in a signature."""

# No `from __future__ import annotations` here: typer reads the annotations.
from typing import Annotated

import typer

from daemon.ctl import joining
from daemon.ctl.joining import JoinTokenFile, OurParty, Watch, join_token
from daemon.ctl.options import AsJson, tssd

app = typer.Typer(help="Take part in a signature.", no_args_is_help=True)


@app.command()
def participate(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="The coordinator's session.")],
    party: OurParty,
    message_hash: Annotated[str, typer.Option("--hash", metavar="HEX", help="What is signed: 32 bytes.")],
    public_key: Annotated[str | None, typer.Option(metavar="HEX", help="With which key: what you expect.")] = None,
    join_token_file: JoinTokenFile = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Take part in a signing that the coordinator holds. It is accepted at once; `sessions watch` follows it.

    The join token is read from a file or typed, never taken from the command line, where everybody could read it.
    """
    body = {
        "sessionId": session_id,
        "partyId": party,
        "joinToken": join_token(join_token_file),
        "messageHash": message_hash,
        **({} if public_key is None else {"publicKey": public_key}),
    }
    joining.participate(tssd(context), "/mpc-party/signing/participate", body, watch=watch, as_json=as_json)
