"""kill -9 of one daemon in mid-session: a sample of the points that bench/kills.py goes through one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from bench.kills import Point, run

POINTS = (
    Point("signing", "send", 5, "after"),  # its nonce is spent, and known to nobody but a dead process
    Point("signing", "commit", 14, "after"),  # about to be completed, or completed and nobody told
    Point("signing", "request", 2, "after"),  # the coordinator has its report, and it does not know that
    Point("signing", "append", 1, "after"),  # so it is with its event
    Point("signing", "delivered", 1, "after"),  # one of the two is marked, the other may not be
    Point("keygen", "delivered", 1, "before"),  # of a share that is active nothing is known to have been told
    Point("keygen", "commit", 10, "after"),  # about to have a share, or one that is pending
)


def test_whatever_a_daemon_dies_over_the_others_and_itself_go_on(arena: None) -> None:  # noqa: ARG001  pre-parameters
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        findings = trio.run(lambda: run(iter(POINTS), Path(directory), sets=4, told=False))
    assert findings.points == len(POINTS)
    assert findings.completed + findings.failed == len(POINTS)
    assert len(findings.nonces) >= len(POINTS)
