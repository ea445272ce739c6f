"""What the clients of coordinator and router share: whom they believe, when they try again, whether that went well."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from daemon.errors import SettingsRefused
from daemon.values import now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from daemon.settings import TlsSettings

_random: Final = SystemRandom()


@dataclass(slots=True)
class Reach:
    """Whether the other side was there when it was last tried.

    Attributes:
        problem: Why it was not; empty where it was, or has not been tried.
        since: The first try in vain since it was last there.
    """

    problem: str = ""
    since: datetime | None = None

    def failed(self, problem: str) -> None:
        """It was not there."""
        self.problem = problem
        self.since = self.since or now()

    def succeeded(self) -> None:
        """It was there, whatever it said."""
        self.problem, self.since = "", None


def delays(first: float = 0.1, longest: float = 15.0) -> Iterator[float]:
    """Seconds to wait before each further try: doubling up to a bound, each shortened at random by up to a half.

    The randomness keeps many daemons from coming back at the same moment.
    """
    bound = first
    while True:
        yield bound * _random.uniform(0.5, 1.0)
        bound = min(2 * bound, longest)


def why(error: BaseException) -> str:
    """What really went wrong: libraries wrap the operating system's and TLS's words in errors without any."""
    deepest: BaseException | None = error
    while deepest is not None:
        if str(deepest):
            return str(deepest)
        deepest = deepest.__cause__ or deepest.__context__
    return type(error).__name__


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer, host name checked; only the pinned authority is believed where one is named.

    Raises:
        SettingsRefused: A file cannot be read or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate_file is not None:
            context.load_cert_chain(tls.certificate_file, tls.key_file)
    except OSError as error:  # ssl.SSLError among them
        named = ", ".join(str(file) for file in (tls.ca_file, tls.certificate_file, tls.key_file) if file is not None)
        raise SettingsRefused(f"tls: {error}", f"look at {named or 'the authorities of this host'}") from None
    return context
