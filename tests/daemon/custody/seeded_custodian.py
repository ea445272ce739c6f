"""A custodian around the seeded test build of the core, whose keygens can be replayed; arguments as for the custodian.

Everything is the custodian's own but the randomness from which each keygen party begins.
"""
# ruff: noqa: E402  (the core takes the place of the real one before anything asks for that)

from typing import Any

from tests.tss_cffi import seeded

seeded.take_its_place()

from daemon.custody import custodian, seats
from tests.daemon.custody.committee import seed_of


def replayable(protocol: seeded.core.Protocol, seat: int, *rest: Any) -> seeded.core.KeygenParty:  # noqa: ANN401
    """A party that begins from its seed."""
    seeded.randomness(seed_of(seat))
    return seeded.core.KeygenParty(protocol, seat, *rest)


if __name__ == "__main__":
    setattr(seats, "KeygenParty", replayable)  # noqa: B010  (in the place of its class, for this program)
    custodian.main()
