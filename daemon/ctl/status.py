"""`tssctl status` and `tssctl health`: able to sign, and alive."""

# No `from __future__ import annotations` here: typer reads the annotations.
from collections.abc import Iterator

import typer
from prometheus_client.parser import text_string_to_metric_families

from daemon.ctl import page
from daemon.ctl.client import Answered, Json, Tssd
from daemon.ctl.options import AsJson, tssd


def show_health(context: typer.Context, as_json: AsJson = False) -> None:
    """Tell whether tssd is alive. It needs no role for this."""
    health = tssd(context).get("/mpc-party/health")
    if as_json:
        page.whole(health)
    else:
        page.say(f"{health['service']}: {health['status']}")


def show_status(context: typer.Context, as_json: AsJson = False) -> None:
    """Tell whether tssd could sign now, and if not, why; and what it holds. Exit code 1 where it could not."""
    at = tssd(context)
    ready = at.get("/mpc-party/ready")
    counted = figures(at)
    try:
        custody, away = at.get("/mpc-party/custody"), ""
    except Answered as refused:
        if refused.kind != "custody-lost":
            raise
        custody, away = None, refused.message
    if as_json:
        page.whole({"ready": ready, "custody": custody, "figures": counted})
    else:
        page.facts(_facts(ready, custody, away, counted))
    if not ready["ready"]:
        raise typer.Exit(1)


def figures(at: Tssd) -> dict[str, dict[str, float]]:
    """Sums of the metrics that say what tssd holds and does, by the label that tells them apart."""
    wanted = {
        "tssd_shares": "status",
        "tssd_sessions_running": "type",
        "tssd_outbox_waiting": "kind",
        "tssd_prepared_sets": "protocol",
        "tssd_shares_to_reseal": "",
        "tssd_custodian_restarts": "",
    }
    return {
        family.name: {sample.labels.get(wanted[family.name], "all"): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(at.text("/metrics"))
        if family.name in wanted
    }


def _facts(ready: Json, custody: Json, away: str, counted: dict[str, dict[str, float]]) -> Iterator[tuple[str, str]]:
    yield "able to sign", "yes" if ready["ready"] else "no"
    for reason in ready["reasons"]:
        yield "because", reason
    for note in ready["notes"]:
        yield "note", note
    if custody is None:
        yield "custodian", f"away: {away}"
    else:
        token = f"{custody['tokenLabel']} ({custody['tokenModel']}, serial {custody['tokenSerial']})"
        yield "HSM", f"{custody['state']}, token {token}, KEK version {custody['kekVersion']}"
        yield "identity", custody["identity"]
        yield "peers", f"pinned, list number {custody['pinsNumber']}" if custody["pinsNumber"] else "none pinned yet"
        yield "locked memory", f"{custody['arenaUsed'] / 2**20:.1f} of {custody['arenaSize'] / 2**20:.0f} MiB"
    yield "shares", _sum(counted.get("tssd_shares", {})) or "none"
    yield "sessions under way", _sum(counted.get("tssd_sessions_running", {})) or "none"
    yield (
        "reports waiting",
        f"{reports:.0f}" if (reports := counted.get("tssd_outbox_waiting", {}).get("report")) else "",
    )
    yield "pre-parameters ready", _sum(counted.get("tssd_prepared_sets", {}))


def _sum(counted: dict[str, float]) -> str:
    return ", ".join(f"{number:.0f} {label}" for label, number in sorted(counted.items()) if number)
