"""The tables that decide what may follow what, and what an error means: complete, and as the words say."""

from __future__ import annotations

from itertools import product

import pytest

from daemon import errors, share
from daemon.session import LEGAL, STATUS_OF, SessionStatus, Step
from daemon.share import ShareStatus


def subclasses(base: type[errors.DaemonError]) -> list[type[errors.DaemonError]]:
    """Of the daemon itself: tssctl has others, for its own exit codes."""
    known = [direct for direct in base.__subclasses__() if not direct.__module__.startswith("daemon.ctl.")]
    return [kind for direct in known for kind in (direct, *subclasses(direct))]


def build(kind: type[errors.DaemonError]) -> errors.DaemonError:
    if kind is errors.PeerFault:
        return errors.PeerFault("m", reason="r")
    if kind in {errors.Busy, errors.Declined}:
        return kind("m", 1)
    return kind("m")


@pytest.mark.parametrize("kind", subclasses(errors.DaemonError), ids=lambda kind: kind.__name__)
def test_every_error_says_what_it_means_to_whom(kind: type[errors.DaemonError]) -> None:
    error = build(kind)
    assert errors.outcome(error).final
    assert 400 <= errors.answer(error) <= 504
    assert errors.exit_code(error) in {1, 69, 70, 78}
    assert error.kind not in {"", "error"}


def test_only_clocks_end_in_timeout() -> None:
    ends = {kind for kind in subclasses(errors.DaemonError) if errors.outcome(build(kind)) is SessionStatus.TIMEOUT}
    assert ends == {errors.Overdue}


def test_an_ended_session_stays_as_it_ended() -> None:
    for status, after in product(SessionStatus, SessionStatus):
        assert (after in LEGAL[status]) == (status is SessionStatus.IN_PROGRESS and after is not status)
    assert {STATUS_OF[step] for step in STATUS_OF} == set(LEGAL[SessionStatus.IN_PROGRESS])
    assert all(STATUS_OF[step] == step.value for step in (Step.COMPLETED, Step.FAILED, Step.TIMEOUT))


def test_a_revoked_or_rotated_share_never_signs_again() -> None:
    reachable = {status: set(share.LEGAL[status]) for status in ShareStatus}
    for _ in ShareStatus:
        for status in ShareStatus:
            reachable[status] |= {further for after in reachable[status] for further in reachable[after]}
    assert ShareStatus.ACTIVE not in reachable[ShareStatus.REVOKED] | reachable[ShareStatus.ROTATED]
    assert not share.LEGAL[ShareStatus.REVOKED]
    assert all(ShareStatus.PENDING not in share.LEGAL[status] for status in ShareStatus)
