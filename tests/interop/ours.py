"""Our own parties as seats of a committee, beside tss-lib's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.interop.committee import Letter
from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class OurSeat:
    """One party of the core. A peer's fault is kept, as the Go seats keep theirs; what comes after it is dropped."""

    def __init__(self, key: int, party: core.KeygenParty | core.SigningParty) -> None:
        self.key: Final = key
        self.party: Final = party
        self.fault: core.Fault | None = None

    def receive(self, sender: int, letter: Letter) -> None:
        """Hand over one message."""
        if self.fault is not None:
            return
        message_class = core.MessageClass.BROADCAST if letter.broadcast else core.MessageClass.DIRECT
        try:
            self.party.receive(sender, message_class, letter.payload)
        except core.PeerFault as failed:
            self.fault = failed.fault

    def outgoing(self) -> list[Letter]:
        """Take what the party has sent since the last call."""
        return [
            Letter(message.to, message.message_class is core.MessageClass.BROADCAST, "", message.data)
            for message in self.party.outgoing()
        ]

    def share(self) -> core.Share:
        """The share of a finished keygen."""
        assert isinstance(self.party, core.KeygenParty)
        assert self.fault is None
        with self.party.result() as made:
            share = core.Share(made)
        self.party.close()
        return share

    def signature(self) -> core.Signature:
        """The signature of a finished signing."""
        assert isinstance(self.party, core.SigningParty)
        assert self.fault is None
        return self.party.result()


def nonce32(nonce: int | None) -> bytes | None:
    """tss-lib's session nonce as our session value."""
    return None if nonce is None else nonce.to_bytes(32)


def keygen(
    profile: str,
    own: int,
    keys: Sequence[int],
    threshold: int,
    pre_parameters: Mapping[str, Any],
    *,
    nonce: int | None = None,
) -> OurSeat:
    """Seat one of our parties in a keygen; arguments as for `GoParties.keygen`."""
    protocol = core.Protocol.of(profile)
    with seeded.prepared_from(dict(pre_parameters), protocol) as made:
        return OurSeat(own, core.KeygenParty(protocol, own, keys, threshold, made, nonce32(nonce)))


def signing(own: int, keys: Sequence[int], share: core.Share, digest: bytes, *, nonce: int | None = None) -> OurSeat:
    """Seat one of our parties in a signing."""
    return OurSeat(own, core.SigningParty(share, keys, digest, nonce32(nonce)))


def load(profile: str, threshold: int, save: Mapping[str, Any]) -> core.Share:
    """A share out of tss-lib's save data."""
    with seeded.import_save(core.Protocol.of(profile), threshold, dict(save)) as data:
        return core.Share(data)
