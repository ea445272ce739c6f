"""Keys of the channel, and what peers say to each other, are in a process's memory in locked pages only.

A seat runs in a process of its own; its peer, here, knows every message and key, and looks for them in that process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import Stranger, keygen_terms, signing_terms

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.uninstrumented(reason="what was freed would be kept, to be looked at")

SCRIPT: Final = Path(__file__).with_name("lonely_seat.py")
SEED: Final = b"lonely seat".ljust(32, b"\0")
WINDOW: Final = 24
SMALLEST: Final = 60
"""Messages shorter than that are mostly the name of their type."""


class Region(NamedTuple):
    """A mapping that can be written. locked: pages that are never swapped out."""

    locked: bool
    data: bytes


def regions(pid: int) -> Iterator[Region]:
    """The memory of a process."""
    described = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8")
    pattern = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) .*?^VmFlags: ([^\n]*)", re.MULTILINE | re.DOTALL)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for begin, end, rights, flags in pattern.findall(described):
            if rights[:2] == "rw" and " io " not in f" {flags} ":
                memory.seek(int(begin, 16))
                try:
                    yield Region("lo" in flags.split(), memory.read(int(end, 16) - int(begin, 16)))
                except OSError:
                    continue  # the kernel's own pages


class Found(NamedTuple):
    """Names of the secrets that were found."""

    in_locked_memory: set[str]
    elsewhere: set[str]


def look_for(secrets: dict[str, list[bytes]], pid: int) -> Found:
    """Look through a whole process; each secret is given by pieces of it."""
    found = Found(set(), set())
    for region in regions(pid):
        for name, pieces in secrets.items():
            if any(piece in region.data for piece in pieces):
                (found.in_locked_memory if region.locked else found.elsewhere).add(name)
    return found


def pieces(message: bytes) -> list[bytes]:
    """A quarter, half, three quarters in, and the end."""
    places = {len(message) * part // 4 for part in (1, 2, 3)} | {len(message) - WINDOW}
    return [message[at : at + WINDOW] for at in places if at >= SMALLEST - WINDOW]


class Lonely:
    """The process."""

    def __init__(self, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, kind, SEED.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def heard(self) -> list[bytes]:
        """What it sends, until it waits."""
        assert self.process.stdout is not None
        frames = []
        while header := self.process.stdout.read(8).strip(b"\0"):
            length = int.from_bytes(header[-4:])
            frames.append(self.process.stdout.read(length))
        return frames

    def tell(self, frame: bytes) -> list[bytes]:
        """Give it a frame."""
        assert self.process.stdin is not None
        self.process.stdin.write(len(frame).to_bytes(4) + frame)
        self.process.stdin.flush()
        return self.heard()


@pytest.mark.parametrize("kind", ["keygen", "sign"])
def test_keys_and_messages_are_in_locked_memory_only(kind: str) -> None:
    terms = keygen_terms() if kind == "keygen" else signing_terms((1, 2))
    stranger = Stranger(terms, 2)
    own = wire.sha256(SEED, (0).to_bytes(8))
    secrets: dict[str, list[bytes]] = {"x25519": [own]}
    lonely = Lonely(kind)
    try:
        for frame in lonely.heard():
            body = frame[: -wire.SIGNATURE]
            assert wire.Ephemeral(own, own).x25519 in body, "the seed gives the keys we look for"
            stranger.receive(frame, 0)
        seen, elsewhere = look_for(secrets, lonely.process.pid)
        assert (seen, elsewhere) == ({"x25519"}, set())
        waiting = stranger.outgoing()
        while waiting:
            _, frame = waiting.pop(0)
            if frame[1] == wire.SEALED:
                opened = wire.unseal(stranger.peer.key(2, 1), frame)
                assert opened is not None
                payload = wire.read_payload(opened, frame[34], 2)
                secrets[f"to it, round {payload.round}, class {frame[34]}"] = pieces(payload.message)
            for answer in lonely.tell(frame):
                if answer[1] == wire.SEALED:
                    said = wire.unseal(stranger.peer.key(1, 2), answer)
                    assert said is not None
                    payload = wire.read_payload(said, answer[34], 2)
                    secrets[f"from it, round {payload.round}, class {answer[34]}"] = pieces(payload.message)
                stranger.receive(answer, 0)
            waiting += stranger.outgoing()
            if stranger.hellos.keys() == {1, 2}:
                secrets["key to it"] = [stranger.peer.key(2, 1)]
                secrets["key from it"] = [stranger.peer.key(1, 2)]
            found = look_for(secrets, lonely.process.pid)
            assert found.elsewhere == set()
            seen |= found.in_locked_memory
        assert sorted(stranger.confirmations) == [1, 2], "the ceremony was a whole one"
        assert {"x25519", "key to it", "key from it"} <= seen, "what is looked for can be found"
        assert any(name.startswith("to it") for name in seen), "so can messages"
        gone = look_for(secrets, lonely.process.pid)
        assert gone == (set(), set()), "at the end nothing is left, not even there"
    finally:
        lonely.process.kill()
        lonely.process.communicate()
        stranger.close()
