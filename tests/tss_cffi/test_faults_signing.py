"""A malicious signer commits one fault at a time; the fault names reason, round, culprit and check.

Seat 1 is honest. The malicious seat is a C party whose messages are bent on their way out, mostly by replacing them
with what a prover of tests/tss_cffi/provers.py makes of a choice that is out of range. docs/checks.md lists every
check with its tests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.interop import gg18, vectors
from tests.interop.gg18 import G, P, Q, mul
from tests.tss_cffi import provers, seeded
from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import Posted, close, hold, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.tss_cffi.table import Change
    from tss_cffi import Fault, Protocol, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

DIGEST: Final = hashlib.sha256(b"to be signed").digest()
HONEST: Final = 1
EVIL: Final = 2
ASK: Final = "signing.SignRound1Message1"
COMMIT: Final = "signing.SignRound1Message2"
ANSWER: Final = "signing.SignRound2Message"
THETA: Final = "signing.SignRound3Message"
GAMMA: Final = "signing.SignRound4Message"
COMMIT_VA: Final = "signing.SignRound5Message"
VA: Final = "signing.SignRound6Message"
COMMIT_UT: Final = "signing.SignRound7Message"
UT: Final = "signing.SignRound8Message"
S: Final = "signing.SignRound9Message"


@dataclass
class Stage:
    """A 2-of-2 signing with one malicious signer, and what that one knows."""

    protocol: Protocol
    shares: dict[int, Share]
    signers: tuple[int, ...] = (HONEST, EVIL)
    log: list[Posted] = field(default_factory=list)

    def __post_init__(self) -> None:
        saves = vectors.saves(self.protocol.label, 2, len(self.shares))
        self.saves = {save["ShareID"]: save for save in saves}
        one, places = saves[0], [seat - 1 for seat in self.signers]
        self.committee = gg18.Committee(
            keys=list(self.signers),
            public_shares=[gg18.Point(*one["BigXj"][place]["Coords"]) for place in places],
            n=[one["PaillierPKs"][place]["N"] for place in places],
            nt=[one["NTildej"][place] for place in places],
            h1=[one["H1j"][place] for place in places],
            h2=[one["H2j"][place] for place in places],
        )
        self.v3 = self.protocol is core.Protocol.GG18_V3
        self.ssid = gg18.signing_ssid(self.committee, int.from_bytes(DIGEST) if self.v3 else 0)

    def context(self, seat: int) -> bytes:
        return gg18.context(self.ssid, self.signers.index(seat))

    def n(self, seat: int) -> int:
        return self.committee.n[self.signers.index(seat)]

    def ring(self, seat: int) -> gg18.Ring:
        place = self.signers.index(seat)
        c = self.committee
        return gg18.Ring(c.nt[place], c.h1[place], c.h2[place], self.v3)

    def w(self, seat: int) -> int:
        return int(gg18.lagrange(seat, self.signers) * self.saves[seat]["Xi"] % Q)

    def said(self, seat: int, kind: str) -> Wire:
        """What a seat sent to the malicious ones."""
        wires = (Wire.parse(posted.data) for posted in self.log if posted.sender == seat)
        return next(wire for wire in wires if wire.type == kind)

    def nonce_point(self, gammas: Mapping[int, gg18.Point]) -> gg18.Point:
        """R, from all thetas and Gammas."""
        theta = sum(self.said(seat, THETA).number(1) for seat in self.signers)
        return gg18.total([mul(pow(theta, -1, Q), gg18.total(gammas.values()))])

    def play(self, changes: Mapping[str, Change], evil: tuple[int, ...] = (EVIL,)) -> dict[int, Fault]:
        seats = seat_signing(self.shares, self.signers, DIGEST)
        try:
            return hold(seats, changes=dict.fromkeys(evil, changes), log=self.log).faults
        finally:
            close(seats)

    def blamed(self, changes: Mapping[str, Change]) -> Fault:
        """The fault that the honest seat finds."""
        return self.play(changes)[HONEST]


@pytest.fixture
def stage(protocol: Protocol, recorded: Recorded) -> Stage:
    return Stage(protocol, recorded(protocol, 2, 2))


def fault(reason: str, found: int, detail: str, *culprits: int) -> Fault:
    return core.Fault(reason, found, culprits or (EVIL,), detail)


def nobody(reason: str, found: int, detail: str) -> Fault:
    return core.Fault(reason, found, (), detail)


def setting(number: int, value: int, index: int = 0) -> Change:
    return lambda wire, _: wire.with_number(number, value, index)


def adding(number: int, value: int, index: int = 0) -> Change:
    return lambda wire, _: wire.with_number(number, wire.number(number, index) + value, index)


# ---- Round 2: c and Alice's range proof ----


def asking(
    stage: Stage, choices: Mapping[str, int], shift: provers.Shift | None = None, context: bytes | None = None
) -> Change:
    def change(wire: Wire, to: int) -> Wire:
        context_there = (context or stage.context(to)) if stage.v3 else None
        c, proof = provers.range_alice(context_there, stage.n(EVIL), stage.ring(to), choices, shift)
        return wire.with_number(1, c).with_numbers(2, proof)

    return change


RANGE_FAULT: Final = fault("proof", 2, "range_proof_alice: does not verify")
BadRange = tuple[dict[str, int], dict[int, int]]


def bad_ranges(n: int, nt: int) -> dict[str, BadRange]:
    """Choices and shifts, each out of one range of a verifier with modulus n and ring nt."""
    return {
        "s1-below-q": ({"m": 0, "alpha": 5}, {}),
        "s1-above-q3": ({"alpha": Q**3}, {}),
        "s2-below-q": ({"rho": 0, "gamma": 5}, {}),
        "s2-too-large": ({"gamma": 2 * Q**3 * nt}, {}),
        "s-is-1": ({"r": 1, "beta": 1}, {}),
        "z-is-1": ({"m": 0, "rho": 0}, {}),
        "s1-equals-s2": ({"m": 3, "rho": 3, "alpha": Q**2, "gamma": Q**2}, {}),
        "another-m-in-c": ({"m": 5, "m_in_c": 6}, {}),
        "z-beyond-nt": ({}, {0: nt}),
        "u-beyond-n2": ({}, {1: n * n}),
        "w-beyond-nt": ({}, {2: nt}),
        "s-beyond-n": ({}, {3: n}),
        "z-wrong": ({}, {0: 1}),
        "u-wrong": ({}, {1: 1}),
        "w-wrong": ({}, {2: 1}),
        "s-wrong": ({}, {3: 1}),
        "s1-wrong": ({}, {4: 1}),
        "s2-wrong": ({}, {5: 1}),
    }


def test_a_range_proof_made_by_the_book_passes(stage: Stage) -> None:
    assert HONEST not in stage.play({ASK: asking(stage, {})})


@pytest.mark.parametrize("case", bad_ranges(1, 1))
def test_range_proof(stage: Stage, case: str) -> None:
    choices, shift = bad_ranges(stage.n(EVIL), stage.ring(HONEST).nt)[case]
    assert stage.blamed({ASK: asking(stage, choices, shift)}) == RANGE_FAULT


@pytest.mark.parametrize("place", range(4), ids=["z", "u", "w", "s"])
def test_range_proof_element_that_is_no_unit(stage: Stage, place: int) -> None:
    honest, evil = stage.saves[HONEST], stage.saves[EVIL]
    factor = evil["PaillierSK"]["P"] if place in {1, 3} else 2 * honest["P"] + 1
    assert stage.blamed({ASK: setting(2, factor, place)}) == RANGE_FAULT


def test_range_proof_whose_s_and_u_are_no_units(stage: Stage) -> None:
    # They fit each other; only whoever knows the factors of N can make them.
    change = asking(stage, {"beta": stage.saves[EVIL]["PaillierSK"]["P"]})
    assert stage.blamed({ASK: change}) == RANGE_FAULT


def test_range_proof_for_another_receiver_or_session(recorded: Recorded) -> None:
    # v2 binds these proofs to no session, but to the ring.
    v3 = Stage(core.Protocol.GG18_V3, recorded(core.Protocol.GG18_V3, 2, 2))
    assert v3.blamed({ASK: asking(v3, {}, context=v3.context(EVIL))}) == RANGE_FAULT
    assert v3.blamed({ASK: asking(v3, {}, context=b"another session")}) == RANGE_FAULT


def test_range_proof_in_another_ring(stage: Stage) -> None:
    def change(wire: Wire, to: int) -> Wire:
        context = stage.context(to) if stage.v3 else None
        c, proof = provers.range_alice(context, stage.n(EVIL), stage.ring(EVIL))
        return wire.with_number(1, c).with_numbers(2, proof)

    assert stage.blamed({ASK: change}) == RANGE_FAULT


def test_range_proof_of_another_ciphertext(stage: Stage) -> None:
    first: list[Wire] = []

    def change(wire: Wire, to: int) -> Wire:
        first.append(asking(stage, {})(wire, to) or wire)
        other = asking(stage, {})(wire, to) or wire
        return first[0].with_number(1, other.number(1))

    assert stage.blamed({ASK: change}) == RANGE_FAULT


@pytest.mark.parametrize("case", ["not-below-n2", "not-a-unit", "longer-than-n2"])
def test_c_that_is_no_ciphertext(stage: Stage, case: str) -> None:
    n, p = stage.n(EVIL), stage.saves[EVIL]["PaillierSK"]["P"]
    value = {"not-below-n2": n * n + 5, "not-a-unit": 7 * p, "longer-than-n2": 1 << 5000}[case]
    assert stage.blamed({ASK: setting(1, value)}) == fault("malformed", 2, "c: not a ciphertext")


def test_all_who_ask_wrongly_are_named(protocol: Protocol, recorded: Recorded) -> None:
    stage = Stage(protocol, recorded(protocol, 2, 3), (1, 2, 3))
    faults = stage.play({ASK: adding(2, 1, 5)}, (2, 3))
    assert faults[HONEST] == fault("proof", 2, "range_proof_alice: does not verify", 2, 3)


# ---- Round 3: Bob's answers ----


def answering(
    stage: Stage,
    *,
    with_check: bool,
    choices: Mapping[str, int] | None = None,
    shift: provers.Shift | None = None,
    stated: gg18.Point | None = None,
    context: bytes | None = None,
) -> Change:
    def change(wire: Wire, to: int) -> Wire:
        c1 = stage.said(to, ASK).number(1)
        own = {"x": stage.w(EVIL)} if with_check else {}
        c2, proof = provers.bob(
            stage.context(EVIL) if context is None else context,
            stage.n(to),
            stage.ring(to),
            c1,
            x_point=with_check,
            stated=stated,
            choices=own | dict(choices or {}),
            shift=shift,
        )
        place = 1 if with_check else 0
        return wire.with_number(1 + place, c2).with_numbers(3 + place, proof)

    return change


def bad_bobs(n: int, nt: int) -> dict[str, BadRange]:
    """Choices and shifts, each out of one range of a verifier with modulus n and ring nt."""
    return {
        "s1-above-q3": ({"alpha": Q**3 + 1}, {}),
        "s2-below-q": ({"rho": 0, "rho_prime": 5}, {}),
        "s2-too-large": ({"rho_prime": 2 * Q**3 * nt}, {}),
        "t1-below-q": ({"y": 0, "gamma": 5}, {}),
        "t1-above-q7": ({"gamma": Q**7}, {}),
        "t2-below-q": ({"sigma": 0, "tau": 5}, {}),
        "t2-too-large": ({"tau": 2 * Q**3 * nt}, {}),
        "z-beyond-nt": ({}, {0: nt}),
        "z-prime-beyond-nt": ({}, {1: nt}),
        "t-beyond-nt": ({}, {2: nt}),
        "v-beyond-n2": ({}, {3: n * n}),
        "w-beyond-nt": ({}, {4: nt}),
        "s-beyond-n": ({}, {5: n}),
        "z-wrong": ({}, {0: 1}),
        "z-prime-wrong": ({}, {1: 1}),
        "t-wrong": ({}, {2: 1}),
        "v-wrong": ({}, {3: 1}),
        "w-wrong": ({}, {4: 1}),
        "s-wrong": ({}, {5: 1}),
        "s1-wrong": ({}, {6: 1}),
        "s2-wrong": ({}, {7: 1}),
        "t1-wrong": ({}, {8: 1}),
        "t2-wrong": ({}, {9: 1}),
        "another-y-in-c": ({"y": 5, "y_in_c": 6}, {}),
        "another-gamma-in-v": ({"gamma": Q**6, "gamma_in_v": Q**6 + 1}, {}),
        "another-x-in-c": ({"x_in_c": 6}, {}),
    }


CHECKED: Final = pytest.mark.parametrize("with_check", [False, True], ids=["bob", "bob-wc"])


def bob_fault(*, with_check: bool) -> Fault:
    return fault("proof", 3, f"proof_bob{'_wc' if with_check else ''}: does not verify")


@CHECKED
def test_an_answer_made_by_the_book_passes(stage: Stage, *, with_check: bool) -> None:
    faults = stage.play({ANSWER: answering(stage, with_check=with_check)})
    assert faults[HONEST].round > 3  # its products do not fit what the rest of the messages say


@CHECKED
@pytest.mark.parametrize("case", bad_bobs(1, 1))
def test_bob_proof(stage: Stage, case: str, *, with_check: bool) -> None:
    choices, shift = bad_bobs(stage.n(HONEST), stage.ring(HONEST).nt)[case]
    change = answering(stage, with_check=with_check, choices=choices, shift=shift)
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=with_check)


def test_bob_proof_s1_below_q(stage: Stage) -> None:
    change = answering(stage, with_check=False, choices={"x": 0, "alpha": 5})
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=False)


@CHECKED
@pytest.mark.parametrize("place", range(6), ids=["z", "z-prime", "t", "v", "w", "s"])
def test_bob_proof_element_that_is_no_unit(stage: Stage, place: int, *, with_check: bool) -> None:
    honest = stage.saves[HONEST]
    factor = honest["PaillierSK"]["P"] if place in {3, 5} else 2 * honest["P"] + 1
    change = setting(4 if with_check else 3, factor, place)
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=with_check)


@CHECKED
def test_bob_proof_of_another_party_or_session(stage: Stage, *, with_check: bool) -> None:
    for context in (stage.context(HONEST), b"another session"):
        change = answering(stage, with_check=with_check, context=context)
        assert stage.blamed({ANSWER: change}) == bob_fault(with_check=with_check)


def test_bob_proof_with_another_w_than_the_committed_one(stage: Stage) -> None:
    change = answering(stage, with_check=True, choices={"x": 12345}, stated=mul(stage.w(EVIL), G))
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=True)
    change = answering(stage, with_check=True, choices={"x": 12345})
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=True)


@pytest.mark.parametrize("place", [10, 11])
def test_bob_proof_with_u_off_the_curve(stage: Stage, place: int) -> None:
    assert stage.blamed({ANSWER: answering(stage, with_check=True, shift={place: 1})}) == bob_fault(with_check=True)
    assert stage.blamed({ANSWER: answering(stage, with_check=True, shift={place: P})}) == bob_fault(with_check=True)


def test_bob_proof_with_u_at_infinity(stage: Stage) -> None:
    # With infinity in place of what is no point, everything would fit.
    change = answering(stage, with_check=True, choices={"alpha": Q})
    assert stage.blamed({ANSWER: change}) == bob_fault(with_check=True)


def paillier_open(save: Mapping[str, Any], c: int) -> int:
    p, q = save["PaillierSK"]["P"], save["PaillierSK"]["Q"]
    n, order = p * q, (p - 1) * (q - 1)
    return int((pow(c, order, n * n) - 1) // n * pow(order, -1, n) % n)


@pytest.mark.parametrize("edge", [-(Q**6), -(Q**3), 0, Q**6], ids=["far-below-0", "below-0", "above-0", "q6"])
def test_where_an_answer_decrypts_to_shows_in_nothing(stage: Stage, edge: int) -> None:
    # The same y modulo q, anywhere that the proof allows: whoever learns from our going on whether a product is beyond
    # some edge, 0 or another, learns how our k compares with a number of its choice.
    def change(wire: Wire, to: int) -> Wire:
        save = stage.saves[to]
        k, product = paillier_open(save, stage.said(to, ASK).number(1)), paillier_open(save, wire.number(2))
        choices = {"y": (product - k * stage.w(EVIL)) % Q + edge, "gamma": Q**7 - 1 if edge < 0 else Q**5}
        changed = answering(stage, with_check=True, choices=choices)(wire, to)
        assert changed is not None
        signed = paillier_open(save, changed.number(2))
        assert (signed if edge >= 0 else signed - stage.n(to)) // Q**3 == edge // Q**3
        return changed

    assert stage.play({ANSWER: change}) == {}


@CHECKED
@pytest.mark.parametrize("case", ["not-below-n2", "not-a-unit", "longer-than-n2"])
def test_an_answer_that_is_no_ciphertext(stage: Stage, case: str, *, with_check: bool) -> None:
    n, p = stage.n(HONEST), stage.saves[HONEST]["PaillierSK"]["P"]
    value = {"not-below-n2": n * n + 5, "not-a-unit": 7 * p, "longer-than-n2": 1 << 5000}[case]
    number = 2 if with_check else 1
    assert stage.blamed({ANSWER: setting(number, value)}) == fault("malformed", 3, f"c{number}: not a ciphertext")


def test_all_who_answer_wrongly_are_named(protocol: Protocol, recorded: Recorded) -> None:
    stage = Stage(protocol, recorded(protocol, 2, 3), (1, 2, 3))
    faults = stage.play({ANSWER: adding(3, 1, 9)}, (2, 3))
    assert faults[HONEST] == fault("proof", 3, "proof_bob: does not verify", 2, 3)


# ---- Round 4: theta ----


# 0 and 5 modulo q, within 256 bits; and beyond them.
UNREDUCED: Final = pytest.mark.parametrize("value", [Q, Q + 5, Q << 1], ids=["q", "q+5", "2q"])


@UNREDUCED
def test_theta_not_reduced(stage: Stage, value: int) -> None:
    assert stage.blamed({THETA: setting(1, value)}) == fault("malformed", 4, "theta: not in (0, q)")


def test_thetas_that_cancel(stage: Stage) -> None:
    def change(wire: Wire, _: int) -> Wire:
        return wire.with_number(1, Q - stage.said(HONEST, THETA).number(1))

    assert stage.blamed({THETA: change}) == nobody("inconsistent", 4, "theta: the sum is zero")


def test_a_wrong_theta_is_found_before_s_is_released(stage: Stage) -> None:
    # The malicious seat goes on with its true theta, so its R is another one.
    assert stage.blamed({THETA: setting(1, 5)}) == fault("proof", 7, "proof of V: does not verify")
    assert all(Wire.parse(posted.data).type != S for posted in stage.log)


# ---- Round 5: Gamma ----


def committed(*opening: int) -> Change:
    """A commitment to an opening of one's own."""
    return setting(1, gg18.hash_ints(*opening))


def opening(*values: int) -> Change:
    return lambda wire, _: wire.with_numbers(1, list(values))


NO_OPENING: Final = "de_commitment: does not open the commitment"
NO_POINT: Final = "de_commitment: not a point of the curve"
# On the curve, with an x so small that x + p still fits into 256 bits.
SMALL: Final = gg18.point(1, pow(1 + gg18.B, (P + 1) // 4, P))


@pytest.mark.parametrize("place", range(3), ids=["r", "x", "y"])
def test_gamma_that_was_not_committed_to(stage: Stage, place: int) -> None:
    assert stage.blamed({GAMMA: adding(1, 1, place)}) == fault("commitment", 5, NO_OPENING)


@pytest.mark.parametrize(
    "xy", [(1, 1), (SMALL.x + P, SMALL.y), (SMALL.x, SMALL.y + P)], ids=["off-curve", "x-beyond-p", "y-beyond-p"]
)
def test_gamma_that_is_no_point(stage: Stage, xy: tuple[int, int]) -> None:
    changes = {COMMIT: committed(9, *xy), GAMMA: opening(9, *xy)}
    assert stage.blamed(changes) == fault("point", 5, NO_POINT)


def test_a_commitment_beyond_256_bits(stage: Stage) -> None:
    detail = "commitment: more than 256 bits"
    assert stage.blamed({COMMIT: adding(1, 1 << 256)}) == fault("malformed", 2, detail)
    assert stage.blamed({COMMIT_VA: adding(1, 1 << 256)}) == fault("malformed", 6, detail)
    assert stage.blamed({COMMIT_UT: adding(1, 1 << 256)}) == fault("malformed", 8, detail)


def test_a_gamma_that_reads_like_the_committed_one(stage: Stage) -> None:
    # The same bytes between "$" signs, cut elsewhere.
    opened = next(each for k in count(1) if b"$" in gg18.i2b((each := [9, *gg18.total([mul(k, G)])])[1])[1:-1])
    changes = {COMMIT: committed(*provers.recut(opened)), GAMMA: opening(*opened)}
    assert stage.blamed(changes) == fault("commitment", 5, NO_OPENING)


def own_gamma(
    stage: Stage, gamma: int, shift: provers.Shift | None = None, context: bytes | None = None
) -> dict[str, Change]:
    point = gg18.total([mul(gamma, G)])
    alpha_x, alpha_y, t = provers.schnorr(stage.context(EVIL) if context is None else context, gamma, shift)

    def change(wire: Wire, _: int) -> Wire:
        opened = wire.with_numbers(1, [9, *point])
        return opened.with_number(2, alpha_x).with_number(3, alpha_y).with_number(4, t)

    return {COMMIT: committed(9, *point), GAMMA: change}


def test_a_gamma_of_ones_own_with_its_proof_passes(stage: Stage) -> None:
    assert stage.blamed(own_gamma(stage, 77)).round == 7  # the malicious seat's own R is another one


@pytest.mark.parametrize(
    "shift",
    [{0: 1}, {1: 1}, {0: P}, {2: 1}, {2: Q}],
    ids=["alpha-off-curve", "alpha-off-curve-y", "alpha-beyond-p", "t-wrong", "t-not-reduced"],
)
def test_the_proof_of_gamma(stage: Stage, shift: provers.Shift) -> None:
    assert stage.blamed(own_gamma(stage, 77, shift)) == fault("proof", 5, "proof of Gamma: does not verify")


def test_the_proof_of_gamma_of_another_session_or_party(stage: Stage) -> None:
    expected = fault("proof", 5, "proof of Gamma: does not verify")
    assert stage.blamed(own_gamma(stage, 77, context=b"other")) == expected
    assert stage.blamed(own_gamma(stage, 77, context=stage.context(HONEST))) == expected


def stream(seed: bytes, count: int) -> list[int]:
    """The first scalars that the seeded build draws."""
    blocks = (hashlib.sha256(seed + counter.to_bytes(8)).digest() for counter in range(count))
    return [int.from_bytes(block, "little") for block in blocks]


def test_gammas_that_cancel(stage: Stage) -> None:
    seed = b"\x11" * 32
    _, gamma = stream(seed, 2)  # of the honest seat, which is opened first
    seeded.randomness(seed)
    try:
        found = stage.blamed(own_gamma(stage, Q - gamma))
    finally:
        seeded.randomness(None)
    assert found == fault("point", 5, "Gamma: cancels the sum of the others")


# ---- Round 7: V and A ----


def own_va(
    stage: Stage,
    *,
    s: int = 5,
    el: int = 6,
    rho: int = 7,
    a_shift: provers.Shift | None = None,
    v_shift: provers.Shift | None = None,
    a_context: bytes | None = None,
    v_context: bytes | None = None,
) -> dict[str, Change]:
    """V = s R + l G and A = rho G of one's own, with their proofs."""
    made: list[gg18.Point] = []

    def points() -> list[gg18.Point]:
        if not made:
            opened = {seat: gg18.Point(*stage.said(seat, GAMMA).numbers(1)[1:]) for seat in stage.signers}
            r = stage.nonce_point(opened)
            made.extend([r, gg18.total([mul(s, r), mul(el, G)]), gg18.total([mul(rho, G)])])
        return made

    def commit(wire: Wire, _: int) -> Wire:
        v, a = points()[1:]
        return wire.with_number(1, gg18.hash_ints(9, *v, *a))

    def reveal(wire: Wire, _: int) -> Wire:
        r, v, a = points()
        own = stage.context(EVIL)
        proofs = [
            *provers.schnorr(own if a_context is None else a_context, rho, a_shift),
            *provers.v_schnorr(own if v_context is None else v_context, s, el, r, v_shift),
        ]
        opened = wire.with_numbers(1, [9, *v, *a])
        for number, element in enumerate(proofs, start=2):
            opened = opened.with_number(number, element)
        return opened

    return {COMMIT_VA: commit, VA: reveal}


def test_a_v_and_a_of_ones_own_with_their_proofs_pass(stage: Stage) -> None:
    assert stage.blamed(own_va(stage)) == nobody("inconsistent", 9, "the sums of U and T differ")


@pytest.mark.parametrize("place", range(5), ids=["r", "v.x", "v.y", "a.x", "a.y"])
def test_v_and_a_that_were_not_committed_to(stage: Stage, place: int) -> None:
    assert stage.blamed({VA: adding(1, 1, place)}) == fault("commitment", 7, NO_OPENING)


@pytest.mark.parametrize("bad", [0, 1], ids=["v", "a"])
@pytest.mark.parametrize("xy", [(1, 1), (SMALL.x + P, SMALL.y)], ids=["off-curve", "x-beyond-p"])
def test_v_or_a_that_is_no_point(stage: Stage, bad: int, xy: tuple[int, int]) -> None:
    points = [*G, *G]
    points[2 * bad : 2 * bad + 2] = xy
    changes = {COMMIT_VA: committed(9, *points), VA: opening(9, *points)}
    assert stage.blamed(changes) == fault("point", 7, NO_POINT)


@pytest.mark.parametrize(
    "shift", [{0: 1}, {0: P}, {2: 1}, {2: Q}], ids=["off-curve", "beyond-p", "t-wrong", "t-not-reduced"]
)
def test_the_proof_of_a(stage: Stage, shift: provers.Shift) -> None:
    found = stage.blamed(own_va(stage, a_shift=shift))
    assert found == fault("proof", 7, "proof of A: does not verify")


@pytest.mark.parametrize(
    "shift",
    [{0: 1}, {0: P}, {2: 1}, {2: Q}, {3: 1}, {3: Q}],
    ids=["off-curve", "beyond-p", "t-wrong", "t-not-reduced", "u-wrong", "u-not-reduced"],
)
def test_the_proof_of_v(stage: Stage, shift: provers.Shift) -> None:
    found = stage.blamed(own_va(stage, v_shift=shift))
    assert found == fault("proof", 7, "proof of V: does not verify")


def test_the_proofs_of_a_and_v_of_another_session_or_party(stage: Stage) -> None:
    for context in (b"other", stage.context(HONEST)):
        found = stage.blamed(own_va(stage, a_context=context))
        assert found == fault("proof", 7, "proof of A: does not verify")
        found = stage.blamed(own_va(stage, v_context=context))
        assert found == fault("proof", 7, "proof of V: does not verify")


def reseeding(seed: bytes) -> dict[str, Change]:
    """From the malicious seat's Gamma on, all randomness comes from the seed."""

    def change(wire: Wire, _: int) -> Wire:
        seeded.randomness(seed)
        return wire

    return {GAMMA: change}


def test_vs_that_cancel(stage: Stage) -> None:
    # V = s R + l G with the true s, and l without the one of the other: what is left is s R = m G + r Y.
    seed = b"\x33" * 32
    _, el, _ = stream(seed, 3)
    try:
        seeded.randomness(seed)
        assert stage.play(reseeding(seed)) == {}
        s = stage.said(EVIL, S).number(1)
        stage.log.clear()
        seeded.randomness(seed)
        found = stage.blamed(own_va(stage, s=s, el=Q - el) | reseeding(seed))
    finally:
        seeded.randomness(None)
    assert found == nobody("inconsistent", 7, "V or A: the sum is infinity")


def test_as_that_cancel(stage: Stage) -> None:
    seed = b"\x22" * 32
    *_, rho = stream(seed, 3)  # what the honest seat draws next: for its proof of Gamma, l, rho

    try:
        found = stage.blamed(own_va(stage, rho=Q - rho) | reseeding(seed))
    finally:
        seeded.randomness(None)
    assert found == nobody("inconsistent", 7, "V or A: the sum is infinity")


# ---- A nonce is used once ----


def test_a_signing_begun_again_shares_no_nonce(protocol: Protocol, recorded: Recorded) -> None:
    stage = Stage(protocol, recorded(protocol, 2, 3), (1, 2, 3))
    for _ in range(2):
        assert HONEST in stage.play({S: adding(1, 1)}, (2, 3))
    wires = [(posted.to, Wire.parse(posted.data)) for posted in stage.log if posted.sender == HONEST]
    ciphertexts = [wire.number(1) for _, wire in wires if wire.type == ASK]
    assert len(ciphertexts) == len(set(ciphertexts)) == 4  # fresh for each receiver
    to_second = [wire for to, wire in wires if to == EVIL]
    for kind in (COMMIT, ANSWER, THETA, GAMMA, COMMIT_VA, VA, COMMIT_UT, UT, S):
        first, again = (wire for wire in to_second if wire.type == kind)
        everything = [{part for parts in wire.fields.values() for part in parts} for wire in (first, again)]
        assert everything[0].isdisjoint(everything[1])


# ---- Rounds 9 and 10: U, T and s ----


@pytest.mark.parametrize("place", range(5), ids=["r", "u.x", "u.y", "t.x", "t.y"])
def test_u_and_t_that_were_not_committed_to(stage: Stage, place: int) -> None:
    assert stage.blamed({UT: adding(1, 1, place)}) == fault("commitment", 9, NO_OPENING)


@pytest.mark.parametrize("bad", [0, 1], ids=["u", "t"])
@pytest.mark.parametrize("xy", [(1, 1), (SMALL.x + P, SMALL.y)], ids=["off-curve", "x-beyond-p"])
def test_u_or_t_that_is_no_point(stage: Stage, bad: int, xy: tuple[int, int]) -> None:
    points = [*G, *G]
    points[2 * bad : 2 * bad + 2] = xy
    changes = {COMMIT_UT: committed(9, *points), UT: opening(9, *points)}
    assert stage.blamed(changes) == fault("point", 9, NO_POINT)


def test_u_that_does_not_match_t(stage: Stage) -> None:
    points = (*G, *SMALL)
    changes = {COMMIT_UT: committed(9, *points), UT: opening(9, *points)}
    assert stage.blamed(changes) == nobody("inconsistent", 9, "the sums of U and T differ")
    assert all(Wire.parse(posted.data).type != S for posted in stage.log if posted.sender == HONEST)


def test_s_that_spoils_the_signature(stage: Stage) -> None:
    assert stage.blamed({S: adding(1, 1)}) == nobody("signature", 10, "the signature does not verify")


@UNREDUCED
def test_s_not_reduced(stage: Stage, value: int) -> None:
    assert stage.blamed({S: setting(1, value)}) == fault("malformed", 10, "s: not in (0, q)")
