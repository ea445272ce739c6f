"""`tssctl hsm`: keys on the token, and how the token is."""

# No `from __future__ import annotations` here: typer reads the annotations.
import hashlib
import time
from typing import Annotated, Final

import msgspec
import trio
import typer
from rich.progress import Progress

from daemon import settings
from daemon.ctl import page
from daemon.ctl.operator import Operator, operating, reachable
from daemon.ctl.options import AsJson, config, tssd
from daemon.custody.wire import Doctor, DoctorReport, InitToken, Status

POLL_SECONDS: Final = 0.5
ROTATE_KEK: Final = "/mpc-party/custody/rotate-kek"

app = typer.Typer(help="The HSM and the keys on it.", no_args_is_help=True)


async def make_keys(operator: Operator) -> Status:
    """Make KEK, identity and backup key on a token that has none of ours.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await operator.ask(InitToken(), Status)


async def examine(operator: Operator) -> DoctorReport:
    """Run the conformance checks. The operator's custodian must not have been asked for anything else before.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await operator.ask(Doctor(), DoctorReport)


@app.command()
def init(context: typer.Context, as_json: AsJson = False) -> None:
    """Make our keys on a token that has none.

    KEK, identity and backup key; the PIN is needed, tssd is not. A KEK that was brought from another token stays; only
    what is missing is made.
    """
    path = config(context)
    read = settings.load(path)
    reachable(read.custodian.state_directory)

    async def run() -> Status:
        async with operating(path) as operator:
            return await make_keys(operator)

    made = trio.run(run)
    identity, fingerprint = made.identity.hex(), hashlib.sha256(made.identity).hexdigest()
    if as_json:
        token = {"label": made.token_label, "serial": made.token_serial, "model": made.token_model}
        page.whole({"token": token, "kekVersion": made.kek_version, "identity": identity, "fingerprint": fingerprint})
        return
    page.facts(
        [
            ("keys made on", f"token {made.token_label} ({made.token_model}, serial {made.token_serial})"),
            ("KEK", f"version {made.kek_version}"),
            ("identity", identity),
            ("fingerprint", page.spelled(fingerprint)),
        ]
    )
    page.say(
        "\nWhat this token can do and what it refuses:  tssctl hsm doctor"
        "\nThe other parties' operators pin this identity, once its fingerprint was compared over a way you trust:"
        f"\n  tssctl peers add NODE {identity} {' '.join(read.custodian.party_ids)}"
    )
    if made.pins_number:
        page.say(
            f"Once tssd works with this key, sign list {made.pins_number} of pins anew with it:  tssctl peers renew"
        )


@app.command(name="status")
def show_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how tssd's custodian and its HSM are. Exit code 1 where they could not, or would not, open a share."""
    custody = tssd(context).get("/mpc-party/custody")
    if as_json:
        page.whole(custody)
    else:
        page.facts(
            [
                ("HSM", custody["state"]),
                ("because", custody["reason"]),
                ("refuses", custody["chainProblem"]),
                ("token", f"{custody['tokenLabel']} ({custody['tokenModel']}, serial {custody['tokenSerial']})"),
                ("tier", custody["tier"]),
                ("KEK", f"version {custody['kekVersion']}"),
                ("identity", custody["identity"]),
                ("calls", f"{custody['hsmOperations']}, of which {custody['hsmErrors']} failed"),
                ("ceremonies open", str(custody["ceremonies"])),
                ("locked memory", f"{custody['arenaUsed']} of {custody['arenaSize']} bytes"),
                ("pins", f"list {custody['pinsNumber']}" if custody["pinsNumber"] else "none yet"),
                ("plain committees", str(custody["plainCommittees"] or "")),
                ("own chain", f"{custody['chainCount']} entries, head {custody['chainHead']}"),
            ]
        )
    if custody["state"] != "ready" or custody["chainProblem"]:
        raise typer.Exit(1)


@app.command()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Prove on your own token what it can do and what it refuses. Exit code 1 where it is of no use to tssd.

    Takes the PIN, not tssd. The checks make keys of their own on the token and remove them; yours are not touched.
    """
    path = config(context)
    reachable(settings.load(path).custodian.state_directory)

    async def run() -> DoctorReport:
        async with operating(path) as operator:
            return await examine(operator)

    report = trio.run(run)
    if as_json:
        page.whole(
            {
                "tier": report.tier,
                "verdict": report.verdict,
                "checks": [msgspec.to_builtins(check) for check in report.checks],
            }
        )
    else:
        page.table(
            ("CHECK", "OUTCOME", "WHAT PASSING PROVES", "SEEN"),
            ((check.name, check.outcome, check.proves, check.detail) for check in report.checks),
            none="no checks",
        )
        counted = dict.fromkeys(("passed", "weak", "failed", "skipped"), 0)
        for check in report.checks:
            counted[check.outcome] += 1
        page.say("\n" + ", ".join(f"{number} {outcome}" for outcome, number in counted.items()))
        page.say(report.verdict, style="bold")
    if report.tier == "none" or any(check.outcome == "failed" for check in report.checks):
        raise typer.Exit(1)


@app.command(name="rotate-kek")
def rotate_kek(
    context: typer.Context,
    wait: Annotated[bool, typer.Option(help="Stay until every share is sealed anew.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make the next version of the KEK and seal every share anew under it. tssd does it, beside its other work.

    It goes on without this command, and after a restart where it was. Exit code 1 where a share is refused; tssd asks
    its custodian for those again and again.
    """
    at = tssd(context)
    begun = at.post(ROTATE_KEK)
    version, shares = begun["kekVersion"], begun["shares"]
    left = shares
    refused: list[dict[str, str]] = []
    if wait:
        screen = page.console(error=True)
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task("sealing anew", total=shares)
            while left > len(refused):
                progress = at.get(ROTATE_KEK)
                left, refused = progress["left"], progress["refused"]
                bar.update(task, completed=shares - left)
                if left > len(refused):
                    time.sleep(POLL_SECONDS)
    if as_json:
        told = {"kekVersion": version, "shares": shares, "left": left}
        page.whole(told | {"refused": refused} if refused else told)
    elif not wait and left:
        page.say(f"KEK version {version} is made; shares being sealed anew under it: {left}")
    else:
        page.say(f"KEK version {version} is made; shares sealed anew under it: {shares - left}")
    if refused and not as_json:
        page.say(f"still under an older version, for the custodian refuses them: {left}", style="bold")
        for share in refused:
            page.say(f"  share {share['shareId']}: {share['reason']}")
    if refused:
        raise typer.Exit(1)
