"""Parties in memory: messages carried in any order, repeated, or changed by a malicious seat on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core, prepared

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from tss_cffi import Fault, KeygenParty, Party, Protocol, Share, SigningParty

    Change = Callable[[Wire, int], Wire | None]
    """What a malicious seat makes of a message to a receiver; None: it is not sent."""


class Posted(NamedTuple):
    """One message on its way to one receiver."""

    sender: int
    to: int
    message_class: core.MessageClass
    data: bytes


class Outcome(NamedTuple):
    """faults: of each seat whose party failed. sent: everything, in the order it was carried."""

    faults: dict[int, Fault]
    sent: list[Posted]


def hold(
    parties: Mapping[int, Party],
    *,
    changes: Mapping[int, Mapping[str, Change]] | None = None,
    log: list[Posted] | None = None,
    order: random.Random | None = None,
    repeats: int = 1,
) -> Outcome:
    """Carry messages until there are none.

    Args:
        parties: By seat.
        changes: What malicious seats do to their messages, by seat and message type.
        log: Gets all messages when they are posted, so that a malicious seat can read them before it sends its own.
        order: Draws the next message; without it the oldest goes first.
        repeats: How often each message is delivered.
    """
    faults: dict[int, Fault] = {}
    sent: list[Posted] = []
    post: list[Posted] = []

    def collect(seat: int) -> None:
        fresh = _posted(parties, seat, (changes or {}).get(seat, {}))
        post.extend(fresh)
        if log is not None:
            log.extend(fresh)

    for seat in parties:
        collect(seat)
    while post:
        posted = post.pop(order.randrange(len(post)) if order else 0)
        sent.append(posted)
        for _ in range(repeats):
            fault = attempt(parties[posted.to], posted.sender, posted.message_class, posted.data)
            if fault is not None:
                faults[posted.to] = fault
        collect(posted.to)
    return Outcome(faults, sent)


def attempt(party: Party, sender: int, message_class: core.MessageClass, data: bytes) -> Fault | None:
    """Deliver one message; the fault that it makes. A finished party takes it in silence."""
    try:
        party.receive(sender, message_class, data)
    except core.PeerFault as error:
        return error.fault
    except core.PartyFinal:
        pass
    return None


def _posted(parties: Mapping[int, Party], seat: int, changes: Mapping[str, Change]) -> list[Posted]:
    """What a seat sends now, one for each receiver."""
    out = []
    for message in parties[seat].outgoing():
        for to in parties:
            if to == seat or message.to not in {None, to}:
                continue
            data = message.data
            if changes:
                wire = Wire.parse(data)
                changed = changes[wire.type](wire, to) if wire.type in changes else wire
                if changed is None:
                    continue
                data = changed.encode()
            out.append(Posted(seat, to, message.message_class, data))
    return out


def seat_keygen(
    protocol: Protocol, threshold: int, parties: int, *, session: bytes | None = None
) -> dict[int, KeygenParty]:
    """Open all seats of a keygen with fixture pre-parameters."""
    seats = range(1, parties + 1)
    opened = {}
    for seat in seats:
        with prepared(seat) as own:
            opened[seat] = core.KeygenParty(protocol, seat, seats, threshold, own, session)
    return opened


def seat_signing(
    shares: Mapping[int, Share], signers: Sequence[int], digest: bytes, *, session: bytes | None = None
) -> dict[int, SigningParty]:
    """Open the seats of a signing."""
    return {seat: core.SigningParty(shares[seat], signers, digest, session) for seat in signers}


def close(parties: Mapping[int, Party]) -> None:
    """Wipe all seats."""
    for party in parties.values():
        party.close()
