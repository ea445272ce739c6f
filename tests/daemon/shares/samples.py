"""Rows as a custodian would make them, for a store that cannot tell the difference."""

from __future__ import annotations

import secrets

from daemon.custody import wire
from daemon.session import SessionType
from daemon.shares.store import Offer, Store
from daemon.values import MessageHash, PartyId, PublicKey, SessionId, ShareId, ShareType

KEY = PublicKey.parse("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
OTHER_KEY = PublicKey.parse("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")
ALICE = PartyId("alice-wallet")
HASH = MessageHash(bytes(range(32)))


def session_id() -> SessionId:
    return SessionId.of_octets(secrets.token_bytes(16))


def offer(session: SessionId | None = None, **changes: object) -> Offer:
    fields: dict[str, object] = {
        "session_id": session or session_id(),
        "party_id": ALICE,
        "type": SessionType.KEYGEN,
        "request_digest": "digest",
        "share_type": ShareType.WALLET,
        "public_key": None,
        "message_hash": None,
        "caller": "uid:1000",
    }
    return Offer(**(fields | changes))  # type: ignore[arg-type]  # fields of Offer


def sealed(kek_version: int = 1) -> wire.Sealed:
    return wire.Sealed(
        format=1,
        tier="A",
        kek_version=kek_version,
        wrapped_key=secrets.token_bytes(40),
        recovery_wrapped=None,
        recovery_fingerprint=None,
        chunks=(
            wire.SealedChunk(data=secrets.token_bytes(100), iv=secrets.token_bytes(12), auth_tag=bytes(16)),
            wire.SealedChunk(data=b"", iv=secrets.token_bytes(12), auth_tag=bytes(16)),
        ),
    )


def share_row(session: SessionId, public_key: PublicKey = KEY, **changes: object) -> wire.ShareRow:
    fields: dict[str, object] = {
        "share_id": str(ShareId.fresh()),
        "party_id": str(ALICE),
        "session": session.octets,
        "share_type": "wallet",
        "public_key": public_key.octets,
        "threshold": 2,
        "committee": tuple(wire.Seat(seat=k + 1, party_id=p) for k, p in enumerate(("alice-wallet", "b-x", "c-x"))),
        "seat": 1,
        "protocol": "gg18-v3",
        "channel": "sealed",
        "generation": 0,
        "transcript": bytes(32),
        "identities": (bytes(33), bytes(33), bytes(33)),
        "result_digest": bytes(32),
        "confirmation": b"body",
        "sealed": sealed(),
    }
    return wire.ShareRow(**(fields | changes))  # type: ignore[arg-type]  # fields of ShareRow


def prepared_row() -> wire.PreparedRow:
    return wire.PreparedRow(
        prepared_id=secrets.token_hex(8), protocol="gg18-v3", fingerprints=(secrets.token_bytes(32),), sealed=sealed()
    )


async def pending_share(store: Store, public_key: PublicKey = KEY) -> wire.ShareRow:
    """A keygen's session up to its pending share."""
    session, _ = await store.offer(offer())
    row = share_row(session.session_id, public_key)
    await store.pend(session, row, (secrets.token_bytes(32),))
    return row


async def active_share(store: Store, public_key: PublicKey = KEY) -> wire.ShareRow:
    row = await pending_share(store, public_key)
    assert await store.activate(await store.share(ShareId(row.share_id)), confirmed=True)
    return row
