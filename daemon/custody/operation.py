"""What an operator may ask for, of a custodian that `tssctl` started for one command on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.custody import pins
from daemon.custody.refusal import Refusal
from daemon.custody.requests import NO_PINS, status_of
from daemon.custody.state import check_named, name_identity, read_peering
from daemon.custody.wire import (
    Check,
    Doctor,
    DoctorReport,
    EditPins,
    GetStatus,
    InitToken,
    NewestPins,
    Pins,
    RenewPins,
    SignSuccession,
    Statement,
    Status,
    VerifyPins,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.custody.pins import PinBook
    from daemon.custody.vault import Vault
    from daemon.custody.wire import Answer, Request
    from daemon.custody.workers import Lane


class OperatorRequests:
    """Carries out what an operator asks for. The chain stays with the service's custodian, which may be running."""

    def __init__(self, vault: Vault, book: PinBook, state_directory: Path) -> None:
        """Nothing is opened yet."""
        self._state_directory = state_directory
        self._vault = vault
        self._book = book
        self._handlers: dict[type[Request], Callable[..., Answer]] = {
            GetStatus: self._status,
            InitToken: self._init_token,
            Doctor: self._doctor,
            EditPins: self._edit_pins,
            RenewPins: self._renew_pins,
            VerifyPins: self._verify_pins,
            NewestPins: self._newest_pins,
            SignSuccession: self._sign_succession,
        }

    def lane(self, _: Request) -> Lane | None:
        """None: an operator asks one thing at a time."""
        return None

    def answer(self, request: Request, _: int) -> Answer:
        """Carry one out. Raises what `refusal_of` knows."""
        handler = self._handlers.get(type(request))
        if handler is None:
            raise Refusal("refused", f"{type(request).__name__} is for the service, not for an operator's custodian")
        if not isinstance(request, GetStatus | Doctor):
            self._vault.start()
            self._vault.settled.wait()  # the first connect, and whoever types the PIN
        return handler(request)

    def _status(self, _: GetStatus) -> Status:
        return status_of(self._vault, self._book)

    def _init_token(self, _: InitToken) -> Status:
        self._vault.make_keys()
        name_identity(self._state_directory, self._vault.identity())
        return self._status(GetStatus())

    def _doctor(self, _: Doctor) -> DoctorReport:
        report = self._vault.examine()
        return DoctorReport(
            tier=report.tier,
            verdict=report.verdict,
            checks=tuple(
                Check(name=result.name, outcome=result.outcome.value, proves=result.proves, detail=result.detail)
                for result in report.results
            ),
        )

    def _verify_pins(self, request: VerifyPins) -> Pins:
        return self._book.check(request.pins, self._vault.identity())

    def _newest_pins(self, _: NewestPins) -> Pins:
        return self._book.newest(self._vault.identity()) or NO_PINS

    def _edit_pins(self, request: EditPins) -> Pins:
        identity = self._admitted_identity()
        newest = self._book.newest(identity)
        if request.pins is not None:
            newest = self._book.check(request.pins, identity)
        before = newest.pins if newest is not None else ()
        after = pins.edited(before, request.action, request.node, request.identity, request.patterns)
        return self._book.sign(after, identity, self._vault.sign)

    def _renew_pins(self, request: RenewPins) -> Pins:
        renew = self._book.begin_anew if request.empty else self._book.renew
        return renew(self._admitted_identity(), self._vault.sign)

    def _admitted_identity(self) -> bytes:
        """Ours, unless the service's custodian would not work with it: another token must sign no list of ours."""
        identity = self._vault.identity()
        check_named(self._state_directory, read_peering(self._state_directory).identity, identity)
        return identity

    def _sign_succession(self, request: SignSuccession) -> Statement:
        pins.check_identity(request.successor, "successor")
        body = pins.successor_body(self._vault.identity(), request.successor)
        return Statement(data=body + self._vault.sign(pins.tagged("tssd/1/succession", body)))
