"""Words to systemd, for both processes; silent elsewhere."""

from __future__ import annotations

import os
import socket


def tell_systemd(*words: str) -> None:
    """Send words of sd_notify(3), such as `READY=1`; nothing where systemd is not listening."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto("\n".join(words).encode(), address)


def watchdog_seconds() -> float | None:
    """How often systemd's watchdog wants to hear of this process at the least; None where nobody watches it."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    if not microseconds or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return microseconds / 1_000_000
