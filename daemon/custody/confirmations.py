"""Confirmations of a stored share: who has signed that the keygen ended for them as it did for us.

The statement is the channel's (docs/channel.md): session, seat, generation, committee, transcript, broadcasts, result.
Ours stands in the row, under the seal; every other must say the same of everything but its seat.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import structs

from daemon.custody import rows
from daemon.custody.refusal import Refusal
from daemon.custody.wire import ConfirmedBy
from tss_cffi import KeyMaterialRefused
from tss_cffi import channel as peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from daemon.custody.wire import ShareRow


COMPLETE_SETS: Final = 64
"""Sets of confirmations that are remembered to be complete; a committee's takes some kB."""


def require_all(row: ShareRow, statements: tuple[bytes, ...]) -> None:
    """Refuse a row that not everybody has confirmed.

    What everybody has confirmed stays confirmed: the answer follows from these very bytes and from nothing else, so
    that a set that was complete is not verified again while this process lives.
    """
    if len(statements) == len(row.committee):
        _remembered(structs.replace(row, sealed=rows.UNSEALED), statements)
    else:  # more may be anything, and is not kept
        _verify_all(row, statements)


def _verify_all(row: ShareRow, statements: tuple[bytes, ...]) -> None:
    missing = confirmed_by(row, statements).missing
    if missing:
        raise Refusal("refused", f"not confirmed by {', '.join(missing)}", "confirmations")


_remembered = lru_cache(COMPLETE_SETS)(_verify_all)
"""By all of a row but its sealed part, and by every statement; what raises is not remembered."""


def check(row: ShareRow) -> None:
    """Refuse a row whose confirmation is not its own, or that has none: plain committees confirm nothing."""
    if row.channel == "plain":
        raise Refusal("refused", "a plain committee confirms nothing", "row.channel")
    try:
        stated = peer.read_confirmation(row.confirmation, None)
    except KeyMaterialRefused:
        raise Refusal("altered", "the row's confirmation does not read", "confirmation") from None
    committee = tuple((member.seat, member.party_id) for member in row.committee)
    for holds, field in (
        (stated.kind == "keygen", "confirmation"),
        (stated.protocol.label == row.protocol, "protocol"),
        (stated.session == row.session, "session"),
        (stated.seat == row.seat, "seat"),
        (stated.generation == row.generation, "generation"),
        (stated.committee == peer.committee_digest(committee, row.threshold, _identities(row)), "committee"),
        (stated.transcript == row.transcript, "transcript"),
        (stated.result == row.result_digest, "result_digest"),
    ):
        if not holds:
            raise Refusal("altered", f"the row's confirmation states another {field}", field)


def confirmed_by(row: ShareRow, statements: Iterable[bytes]) -> ConfirmedBy:
    """Whose statements confirm the row, and who is missing. What does not verify says nothing. Raises Refusal."""
    check(row)
    statements = tuple(statements)
    seats = peer.confirmed_by(row.confirmation, statements, _identities(row))
    missing = tuple(member.party_id for member in row.committee if member.seat not in seats)
    withdrawn = frozenset(_withdrawn(row, statements)) if missing else frozenset()
    return ConfirmedBy(
        confirmed=tuple(member.party_id for member in row.committee if member.seat in seats),
        missing=missing,
        withdrawn=tuple(party_id for party_id in missing if party_id in withdrawn),
    )


def _withdrawn(row: ShareRow, statements: Iterable[bytes]) -> Iterator[str]:
    """Parties whose abort notices for the row's session are among these."""
    names = {member.seat: member.party_id for member in row.committee}
    identities = _identities(row)
    for statement in statements:
        claims = peer.frame_claims(statement)
        if claims is None or claims.sender not in identities:
            continue
        try:
            notice = peer.read_abort(statement, identities[claims.sender])
        except KeyMaterialRefused:
            continue
        if notice.session == row.session and notice.party_id == names.get(notice.seat) and notice.seat == claims.sender:
            yield notice.party_id


def _identities(row: ShareRow) -> dict[int, bytes]:
    return {member.seat: identity for member, identity in zip(row.committee, row.identities, strict=True)}
