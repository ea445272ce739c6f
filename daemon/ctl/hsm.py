"""`tssctl hsm`: keys on the token, and how the token is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.custody.wire import Doctor, DoctorReport, InitToken, Status

if TYPE_CHECKING:
    from daemon.ctl.operator import Operator


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
