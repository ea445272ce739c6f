"""A process that holds secrets, for test_memory.py to search: it signs or makes a key, and stops until it is let go on.

Arguments: the folder of the seeded build; tss-lib's save data of seats 1 and 2 of 2-of-2, or two sets of its
pre-parameters, in a file each; a seed in hex; "sign", "fail" or "keygen". The files go straight into the arena. Seat 1
is the one whose secrets are looked for.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

folder, first, second, seed, what = sys.argv[1:]
if TYPE_CHECKING:
    import tss_cffi as core
    from tss_cffi._core import ffi, lib
else:
    sys.path.insert(0, folder)
    core = importlib.import_module("tss_cffi_seeded")
    compiled = importlib.import_module("tss_cffi_seeded._core")
    ffi, lib = compiled.ffi, compiled.lib

CANARY = b"a canary in the keeper's memory"


def stop(text: str) -> None:
    """Say where we are, and wait to be told to go on."""
    print(text, flush=True)  # noqa: T201 - how the parent is told
    sys.stdin.readline()


def read(path: str) -> core.SecretBytes:
    """A file, past Python."""
    text = core.SecretBytes(Path(path).stat().st_size)
    with Path(path).open("rb", buffering=0) as file:
        assert file.readinto(ffi.buffer(ffi.cast("char *", text.address), len(text))) == len(text)
    return text


def load(path: str) -> core.Share:
    """A share out of a file."""
    with read(path) as text, core.Share.import_foreign(core.Protocol.GG18_V2, 2, text) as data:
        return core.Share(data)


def prepare(path: str) -> core.SecretBytes:
    """Pre-parameters out of a file."""
    slot = ffi.new("tss_secret **")
    with read(path) as text:
        assert lib.tss_seeded_prepared(slot, core.Protocol.GG18_V2, text.handle) == 0
    return core.SecretBytes.adopt(slot[0])


def arena() -> str:
    """First and last address of the arena."""
    with core.SecretBytes(1) as inside:
        for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
            low, high = line.split()[0].split("-")
            if int(low, 16) <= inside.address < int(high, 16):
                return f"{low} {high}"
    raise AssertionError("the arena is not mapped")


def turn(sender: Any, receiver: Any, seat: int) -> None:  # noqa: ANN401 - either kind of party
    """Carry what one seat has to say."""
    for message in sender.outgoing():
        receiver.receive(seat, message.message_class, message.data)


def hold(one: Any, two: Any, rounds: int) -> None:  # noqa: ANN401 - either kind of party
    """Carry messages until seat 1 waits for those of that round, or has its result."""
    while one.state is not core.PartyState.DONE and one.round[0] < rounds:
        turn(one, two, 1)
        turn(two, one, 2)


def make_key() -> None:
    """A keygen."""
    prepared = prepare(first), prepare(second)
    stop("prepared")
    parties = {}
    for seat, own in enumerate(prepared, start=1):
        lib.tss_seeded_randomness(bytes([seat]) + bytes.fromhex(seed)[1:])
        parties[seat] = core.KeygenParty(core.Protocol.GG18_V2, seat, (1, 2), 2, own)
        own.close()
    lib.tss_seeded_randomness(ffi.NULL)
    hold(parties[1], parties[2], 3)
    stop("round 3")
    hold(parties[1], parties[2], 99)
    share = parties[1].result()
    for party in parties.values():
        party.close()
    stop("made")
    share.close()


def sign() -> None:
    """A signing; "fail" has it end in round 1."""
    shares = {1: load(first), 2: load(second)}
    stop("loaded")
    lib.tss_seeded_randomness(bytes.fromhex(seed))
    one = core.SigningParty(shares[1], (1, 2), b"d" * 32)
    lib.tss_seeded_randomness(ffi.NULL)
    two = core.SigningParty(shares[2], (1, 2), b"d" * 32)
    stop("round 1")
    if what == "fail":
        try:
            one.receive(2, core.MessageClass.DIRECT, b"\x00")
        except core.PeerFault:
            one.close()
    else:
        hold(one, two, 6)
        stop("round 6")
        hold(one, two, 99)
        one.result()
        stop("signed")
        one.close()
    two.close()
    for share in shares.values():
        share.close()


core.open_arena(16 * 1024 * 1024)
stop(arena())
if what == "keygen":
    make_key()
else:
    sign()
stop("closed")
