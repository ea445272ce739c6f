"""Sans-IO parties: one seat in one ceremony, told what came in, asked what goes out."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from ._core import ffi, lib
from .errors import (
    ENUM_MAX,
    U16_MAX,
    U32_MAX,
    Fault,
    Misuse,
    NoResult,
    PartyFinal,
    PeerFault,
    Status,
    Stranger,
    check,
    in_range,
)
from .secret import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .share import Protocol, Share


class MessageClass(IntEnum):
    """How a message travels: to all, the same for all; or to one."""

    BROADCAST = 1
    DIRECT = 2


class PartyState(IntEnum):
    """Waits for messages, has some to send, is done, or has failed. The last two are final."""

    WANTS = 1
    HAS = 2
    DONE = 3
    FAILED = 4


class Message(NamedTuple):
    """One message to send. to: a seat, or None for everybody."""

    to: int | None
    message_class: MessageClass
    round: int
    data: bytes


class Signature(NamedTuple):
    """rs: r||s, 64 bytes, low s. recovery_id: 0 to 3, of these r and s."""

    rs: bytes
    recovery_id: int


class Party:
    """One seat in one ceremony. Opened by a subclass; `close` wipes it, at any time."""

    _handle: Any
    _seats: tuple[int, ...]

    @property
    def handle(self) -> Any:  # noqa: ANN401 - cffi pointers have no type
        """The C object; ValueError once closed."""
        if self._handle is None:
            raise ValueError("this party was wiped already")
        return self._handle

    @property
    def closed(self) -> bool:
        """Whether it was wiped."""
        return self._handle is None

    @property
    def state(self) -> PartyState:
        """What the party is waiting for."""
        return PartyState(lib.tss_party_state(self.handle))

    @property
    def round(self) -> tuple[int, int]:
        """The round whose messages are awaited, from 1, and how many there are."""
        now = ffi.new("uint16_t *")
        rounds = ffi.new("uint16_t *")
        lib.tss_party_round(self.handle, now, rounds)
        return now[0], rounds[0]

    def waits_for(self) -> tuple[int, ...]:
        """Seats whose message of the present round has not come."""
        mask = lib.tss_party_waits_for(self.handle)
        return tuple(seat for place, seat in enumerate(self._seats) if mask >> place & 1)

    def receive(self, sender: int, message_class: MessageClass, data: bytes) -> bool:
        """Take one message of a peer; compute the round when it was the last one missing.

        Args:
            sender: Seat of the sender, vouched for by the channel.
            message_class: How the channel delivered it.
            data: One wire message, any bytes; more than 256 KiB are misuse.

        Returns:
            True where it was taken, False where the very same message had come before.

        Raises:
            PeerFault: The ceremony failed; the party is finished.
            Stranger: The sender has no seat here.
            PartyFinal: The party was finished already.
            Misuse: An argument is out of range.
        """
        in_range(sender, "from", U32_MAX)
        in_range(message_class, "class_", ENUM_MAX)
        status = check(lib.tss_party_receive(self.handle, sender, message_class, data, len(data)))
        if status is Status.FAULT:
            fault = self.fault()
            assert fault is not None  # noqa: S101 - the header's promise, not input
            raise PeerFault(fault)
        if status is Status.STRANGER:
            raise Stranger(f"seat {sender} is not a peer in this ceremony")
        if status is Status.FINAL:
            raise PartyFinal(f"the party is {self.state.name.lower()}")
        return status is Status.OK

    def outgoing(self) -> list[Message]:
        """All messages to send now, in order; each is given once.

        The bytes may hold a peer's secret share. Only plain committees and tests take them this way.
        """
        messages: list[Message] = []
        message = ffi.new("tss_message *")
        while check(lib.tss_party_outgoing(self.handle, message)) is Status.OK:
            data = bytes(ffi.buffer(message.data, message.data_len))
            messages.append(Message(message.to or None, MessageClass(message.class_), message.round, data))
        return messages

    def fault(self) -> Fault | None:
        """Why the ceremony failed, if it did."""
        fault = ffi.new("tss_fault *")
        lib.tss_party_fault(self.handle, fault)
        if fault.reason == 0:
            return None
        return Fault(
            reason=ffi.string(lib.tss_reason_name(fault.reason)).decode("ascii"),
            round=fault.round,
            culprits=tuple(fault.culprits[0 : fault.culprits_len]),
            detail=ffi.string(fault.detail).decode("ascii"),
        )

    def close(self) -> None:
        """Wipe and release; harmless when done already."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.tss_party_free(handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets do not leave the process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


class KeygenParty(Party):
    """A seat in a keygen."""

    def __init__(
        self,
        protocol: Protocol,
        seat: int,
        seats: Sequence[int],
        threshold: int,
        prepared: SecretBytes | None,
        session: bytes | None = None,
    ) -> None:
        """Open the seat.

        Args:
            protocol: Which protocol, in which wire format.
            seat: Our own.
            seats: All n, ascending, 2 to 32 of them, each 1..65535.
            threshold: t, that many will sign; 2 <= t <= n.
            prepared: A set for this one keygen, spent by this call; None where the protocol wants none.
            session: 32 bytes, unique to this ceremony and equal at all parties, where the protocol can bind one.

        Raises:
            Misuse: An argument is wrong; it is named.
            KeyMaterialRefused: The pre-parameters are.
        """
        self._handle = None
        slot = ffi.new("tss_party **")
        check(
            lib.tss_keygen_begin(
                slot,
                in_range(protocol, "protocol", ENUM_MAX),
                in_range(seat, "seat", U32_MAX),
                _seat_list(seats, "seats"),
                len(seats),
                in_range(threshold, "threshold", U16_MAX),
                ffi.NULL if prepared is None else prepared.handle,
                _session(session),
            )
        )
        self._handle = slot[0]
        self._seats = tuple(seats)

    def result(self) -> SecretBytes:
        """The share, handed over once. Raises NoResult."""
        slot = ffi.new("tss_secret **")
        if check(lib.tss_keygen_result(self.handle, slot)) is Status.NOTHING:
            raise NoResult("this keygen has no share to hand over (not finished, failed, or handed over already)")
        return SecretBytes.adopt(slot[0])


class SigningParty(Party):
    """A seat in a signing."""

    def __init__(self, share: Share, signers: Sequence[int], digest: bytes, session: bytes | None = None) -> None:
        """Open the seat; the share may be closed afterwards.

        Args:
            share: Our share of the key.
            signers: At least t seats of the share's committee, ascending, ours among them.
            digest: 32 bytes, big-endian; reduced modulo the group order.
            session: 32 bytes, unique to this ceremony and equal at all parties, where the protocol can bind one.

        Raises:
            Misuse: An argument is wrong; it is named.
        """
        self._handle = None
        if len(digest) != 32:  # noqa: PLR2004 - the width of SHA-256
            raise Misuse("digest32")
        slot = ffi.new("tss_party **")
        check(
            lib.tss_signing_begin(
                slot, share.handle, _seat_list(signers, "signers"), len(signers), digest, _session(session)
            )
        )
        self._handle = slot[0]
        self._seats = tuple(signers)

    def result(self) -> Signature:
        """The signature, verified. Raises NoResult."""
        rs = ffi.new("uint8_t[64]")
        recovery_id = ffi.new("uint8_t *")
        if check(lib.tss_signing_result(self.handle, rs, recovery_id)) is Status.NOTHING:
            raise NoResult("this signing has no signature (not finished, or failed)")
        return Signature(bytes(ffi.buffer(rs)), recovery_id[0])


def _seat_list(seats: Sequence[int], argument: str) -> Any:  # noqa: ANN401 - cffi arrays have no type
    return ffi.new("uint32_t[]", [in_range(seat, argument, U32_MAX) for seat in seats])


def _session(session: bytes | None) -> Any:  # noqa: ANN401 - cffi pointers have no type
    if session is None:
        return ffi.NULL
    if len(session) != 32:  # noqa: PLR2004 - the width of SHA-256
        raise Misuse("session32")
    return ffi.from_buffer(session)
