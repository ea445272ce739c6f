"""`tssd`: arguments, logs, the event loop, the exit code."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path

import structlog
import trio

from daemon import logs, service, settings
from daemon.custody.client import CustodianRefused
from daemon.errors import DaemonError, SettingsRefused, exit_code

log = structlog.get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon. Exit codes: 0 stopped by a signal, 78 configuration, 69 custody, 70 a defect, 1 refused."""
    parser = argparse.ArgumentParser(prog="tssd", description="Takes part in threshold keygen and signing.")
    parser.add_argument("--config", type=Path, default=Path("/etc/tssd/config.toml"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="read the configuration, say what is wrong with it, exit")
    parser.add_argument(
        "--trusted-config",
        action="store_true",
        help="everything runs as one user: the custodian may be able to write its own policy (trials and tests)",
    )
    given = parser.parse_args(arguments)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        config = given.config.absolute()
        read = settings.load(config)
        if given.check:
            print(f"{config}: in order")  # noqa: T201  the answer that was asked for
            return 0
        logs.configure(read.log)
        trio.run(lambda: service.run(read, config, trusted_config=given.trusted_config))
    except DaemonError as error:
        return _complain(error)
    except CustodianRefused as refused:
        return _complain(SettingsRefused(str(refused), "see [custodian]"))
    except BaseExceptionGroup as group:
        known, _ = group.split(DaemonError)
        if known is None:
            raise
        return _complain(_first(known))
    return 0


def _complain(error: DaemonError) -> int:
    remedy = f"\n  -> {error.remedy}" if error.remedy else ""
    print(f"tssd: {error.message}{remedy}", file=sys.stderr)  # noqa: T201  also where logs are not configured yet
    return exit_code(error)


def _first(group: BaseExceptionGroup[DaemonError]) -> DaemonError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DaemonError)  # noqa: S101  the group was split by this type
    return error


if __name__ == "__main__":
    sys.exit(main())
