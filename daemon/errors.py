"""Every error the daemon tells anybody about, and what each one means to whom.

```
DaemonError
|- Refused        the caller may not, or not now
|  |- InvalidValue, Disagreement, NotPermitted, SessionReplayed, Busy
|  |- UnknownShare, UnknownSession, NoActiveShare, ShareNotActive
|  `- AuditUnwritable, SettingsRefused
|- PeerFault      another party broke the protocol; .culprits
|- Overdue        one of the clocks ran out: the session's, the stall clock
|- Unreachable    coordinator, router: trying again is sensible
|- Declined       coordinator or router said no, for good
|- Misspoken      coordinator or router answered what its interface does not know
|- Restarted      tssd stopped in mid-session
|- TokenLost      the custodian or its HSM is gone, locked or refuses us
`- Broken         our own invariant does not hold
```

`SESSION_OUTCOME`, `ANSWER` and `EXIT_CODE` at the end are the only places that turn an error into a session status, an
HTTP status or an exit code. Anything else raised is a defect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.session import SessionStatus

if TYPE_CHECKING:
    from daemon.values import PartyId


class DaemonError(Exception):
    """Base of all of them.

    Args:
        message: What went wrong, in the words of whoever asked. Never a secret, never a join token.
        remedy: What to do next; may be empty.
    """

    kind = "error"
    """Stable name: the last part of a problem document's `type`, and the reason of a failed session."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Refused(DaemonError):
    """The caller may not do this, or not now."""

    kind = "refused"


class InvalidValue(Refused, ValueError):
    """A value cannot be what it claims to be. field: its name in the words of the caller; may be empty."""

    kind = "invalid-value"

    def __init__(self, message: str, field: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


class Disagreement(Refused):
    """The coordinator's session is not the one that was asked for here, or not that of the stored share."""

    kind = "session-disagrees"


class Unauthenticated(Refused):
    """The bearer token that is required is missing or does not hold."""

    kind = "unauthenticated"


class NotPermitted(Refused):
    """The caller's role or share types do not allow this."""

    kind = "not-permitted"


class SessionReplayed(Refused):
    """The session id was used before, with another request."""

    kind = "session-replayed"


class Busy(Refused):
    """The house is full. retry_after: seconds, a whole number of at least 1."""

    kind = "busy"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, f"try again in {retry_after} s")
        self.retry_after = retry_after


class UnknownShare(Refused):
    """No share has this id."""

    kind = "unknown-share"


class UnknownSession(Refused):
    """No session of ours has this id."""

    kind = "unknown-session"


class NoActiveShare(Refused):
    """No active share for this party id and public key."""

    kind = "no-active-share"


class ShareNotActive(Refused):
    """The share is pending, rotated, revoked or quarantined."""

    kind = "share-not-active"


class AuditUnwritable(Refused):
    """The audit log cannot be written or does not verify: nothing is signed."""

    kind = "audit-unwritable"


class SettingsRefused(Refused):
    """config.toml cannot be used. The message names file, line and key."""

    kind = "settings"


class PeerFault(DaemonError):
    """Another party broke the protocol.

    Args:
        culprits: Who; empty where nobody can be named.
        hearsay: Whom a peer's abort notice blames: shown, never counted.
        authenticated: False in plain committees, where the sender is only the router's word.
    """

    kind = "peer-fault"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        culprits: tuple[PartyId, ...] = (),
        hearsay: tuple[PartyId, ...] = (),
        authenticated: bool = True,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.culprits = culprits
        self.hearsay = hearsay
        self.authenticated = authenticated


class Overdue(DaemonError):
    """A clock ran out. waits_for: the parties, or the named reason, that was being waited for."""

    kind = "overdue"

    def __init__(self, message: str, waits_for: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.waits_for = waits_for


class Unreachable(DaemonError):
    """Coordinator or router cannot be reached, or says it is unwell."""

    kind = "unreachable"


class Declined(DaemonError):
    """Coordinator or router said no, and would say it again. status: its HTTP status."""

    kind = "declined"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Misspoken(DaemonError):
    """Coordinator or router answered what its interface does not know."""

    kind = "misspoken"


class Restarted(DaemonError):
    """tssd stopped while the session was under way; nothing is resumed inside a round."""

    kind = "restart"


class TokenLost(DaemonError):
    """The custodian or its HSM is gone, locked or unwell."""

    kind = "custody-lost"


class Broken(DaemonError):
    """Our own invariant does not hold."""

    kind = "broken"


SESSION_OUTCOME: Final[dict[type[DaemonError], SessionStatus]] = {
    Refused: SessionStatus.FAILED,
    PeerFault: SessionStatus.FAILED,
    Overdue: SessionStatus.TIMEOUT,
    Unreachable: SessionStatus.FAILED,
    Declined: SessionStatus.FAILED,
    Misspoken: SessionStatus.FAILED,
    Restarted: SessionStatus.FAILED,
    TokenLost: SessionStatus.FAILED,
    Broken: SessionStatus.FAILED,
}
"""What a session becomes when this ends it; the nearest base class counts."""

ANSWER: Final[dict[type[DaemonError], int]] = {
    InvalidValue: 422,
    Disagreement: 409,
    Unauthenticated: 401,
    NotPermitted: 403,
    SessionReplayed: 409,
    Busy: 503,
    UnknownShare: 404,
    UnknownSession: 404,
    NoActiveShare: 409,
    ShareNotActive: 409,
    AuditUnwritable: 503,
    Refused: 409,
    PeerFault: 502,
    Overdue: 504,
    Unreachable: 502,
    Declined: 502,
    Misspoken: 502,
    Restarted: 503,
    TokenLost: 503,
    Broken: 500,
}
"""The HTTP status of the problem document; the nearest base class counts."""

EXIT_CODE: Final[dict[type[DaemonError], int]] = {
    SettingsRefused: 78,
    TokenLost: 69,
    Unreachable: 69,
    Refused: 1,
    PeerFault: 1,
    Overdue: 1,
    Declined: 1,
    Misspoken: 1,
    Restarted: 1,
    Broken: 70,
}
"""The process's exit code (sysexits.h where it has one); the nearest base class counts."""


def outcome(error: DaemonError) -> SessionStatus:
    """The status of a session that this error ended."""
    return next(SESSION_OUTCOME[base] for base in type(error).__mro__ if base in SESSION_OUTCOME)


def answer(error: DaemonError) -> int:
    """The HTTP status that tells this error."""
    return next(ANSWER[base] for base in type(error).__mro__ if base in ANSWER)


def exit_code(error: DaemonError) -> int:
    """The exit code of a process that this error ended."""
    return next(EXIT_CODE[base] for base in type(error).__mro__ if base in EXIT_CODE)
