"""A malicious party of a keygen commits one fault at a time; the fault names reason, round, culprit and check.

docs/checks.md lists every check with its tests.

Seat 1 is honest. What seat 2 says is bent on its way out, or made anew by a prover that knows its secrets.
"""

from __future__ import annotations

import functools
import hashlib
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.interop import gg18, vectors
from tests.interop.gg18 import G, P, Q, mul
from tests.tss_cffi import provers, seeded
from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import close, hold, seat_keygen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.tss_cffi.table import Change
    from tss_cffi import Fault, KeygenParty, Protocol

HONEST: Final = 1
EVIL: Final = 2
COMMIT: Final = "keygen.KGRound1Message"
DEAL: Final = "keygen.KGRound2Message1"
REVEAL: Final = "keygen.KGRound2Message2"
PROVE: Final = "keygen.KGRound3Message"
PAILLIER_N, N_TILDE, H1, H2, DLN_1, DLN_2 = 2, 3, 4, 5, 6, 7  # fields of COMMIT
DLN: Final = gg18.DLN_ITERATIONS

# Primes = 3 mod 4, by their bits; one = 5 mod 8; the largest of 2048 bits.
PRIME_161: Final = (1 << 160) + 7
PRIME_944: Final = (3 << 942) + 287
PRIME_945: Final = (1 << 944) + 2763
PRIME_1024: Final = (3 << 1022) + 2087
PRIME_1728: Final = (3 << 1726) + 1039
PRIME_1888: Final = (3 << 1886) + 1495
PRIME_2048: Final = (1 << 2047) + 1919
PRIME_5_MOD_8: Final = (3 << 1022) + 1037
LARGEST_PRIME: Final = (1 << 2048) - 1942289


def fault(reason: str, found: int, detail: str, *culprits: int) -> Fault:
    return core.Fault(reason, found, culprits or (EVIL,), detail)


PAILLIER_FAULT: Final = fault("proof", 4, "paillier_proof: does not verify")


def adding(number: int, value: int, index: int = 0) -> Change:
    return lambda wire, _: wire.with_number(number, wire.number(number, index) + value, index)


def setting(number: int, value: int, index: int = 0) -> Change:
    return lambda wire, _: wire.with_number(number, value, index)


SEED: Final = b"\x44" * 32


@functools.cache
def recorded(protocol: Protocol) -> dict[str, Wire]:
    """What seat 2 says to seat 1 in a 2-of-2 keygen without malice, where seat 1's polynomial comes from SEED."""
    seats = {HONEST: open_honest(protocol)}
    with seeded.prepared(EVIL) as own:
        seats[EVIL] = core.KeygenParty(protocol, EVIL, (HONEST, EVIL), 2, own)
    outcome = hold(seats)
    close(seats)
    assert outcome.faults == {}
    wires = (Wire.parse(posted.data) for posted in outcome.sent if posted.sender == EVIL)
    return {wire.type: wire for wire in wires}


def open_honest(protocol: Protocol) -> KeygenParty:
    """Seat 1 of 2-of-2, with the polynomial that SEED gives it and fresh randomness from there on."""
    with seeded.prepared(HONEST) as own:
        seeded.randomness(SEED)
        try:
            return core.KeygenParty(protocol, HONEST, (HONEST, EVIL), 2, own)
        finally:
            seeded.randomness(None)


class Stage:
    """A 2-of-2 keygen with a malicious party, and what that one knows."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.own: dict[int, dict[str, Any]] = dict(enumerate(vectors.pre_parameters(), start=1))
        self.ssid = gg18.keygen_ssid((HONEST, EVIL), 0)
        self.tag = self.ssid if protocol is core.Protocol.GG18_V3 else None

    def context(self, seat: int) -> bytes:
        return gg18.context(self.ssid, seat - 1)

    def ring(self, seat: int) -> gg18.Ring:
        own = self.own[seat]
        return gg18.Ring(own["NTildei"], own["H1i"], own["H2i"], hashed=True)

    def dln(self, *, inverse: bool, tag: bytes | None = None, **how: Any) -> list[int]:  # noqa: ANN401 - provers.dln's
        own = self.own[EVIL]
        h = (own["H2i"], own["H1i"]) if inverse else (own["H1i"], own["H2i"])
        x, order = own["Beta" if inverse else "Alpha"], own["P"] * own["Q"]
        return provers.dln(tag or self.tag, h, own["NTildei"], x=x, order=order, **how)

    def play(self, changes: Mapping[str, Change]) -> Fault | None:
        """The fault that the honest seat finds; None: it gets its share."""
        with open_honest(self.protocol) as party:
            for kind, wire in recorded(self.protocol).items():
                message_class = core.MessageClass.DIRECT if kind == DEAL else core.MessageClass.BROADCAST
                changed = changes[kind](wire, HONEST) if kind in changes else wire
                assert changed is not None
                try:
                    party.receive(EVIL, message_class, changed.encode())
                except core.PeerFault as error:
                    return error.fault
            party.outgoing()
            assert party.state is core.PartyState.DONE
            return None


def play_three(changes: Mapping[int, Mapping[str, Change]], protocol: Protocol = core.Protocol.GG18_V2) -> Fault:
    """The fault that seat 1 finds in a 2-of-3 keygen with two malicious parties."""
    seats = seat_keygen(protocol, 2, 3)
    try:
        return hold(seats, changes=changes).faults[HONEST]
    finally:
        close(seats)


@pytest.fixture
def stage(protocol: Protocol) -> Stage:
    return Stage(protocol)


@pytest.fixture
def v2() -> Stage:
    """For what is the same in both profiles."""
    return Stage(core.Protocol.GG18_V2)


# ---- Round 2: public parameters ----

SIZE_N: Final = "paillier_n: not odd of 2048 bits"
SIZE_NT: Final = "n_tilde: not odd of 2048 bits"
LONG: Final = "paillier_n, n_tilde, h1, h2: more than 2048 bits"
RANGE_H1: Final = "h1: not a unit above 1 of n_tilde"
RANGE_H2: Final = "h2: not a unit above 1 of n_tilde"


@pytest.mark.parametrize(
    ("number", "value", "detail"),
    [
        pytest.param(PAILLIER_N, (1 << 2047) - 1, SIZE_N, id="n-of-2047-bits"),
        pytest.param(PAILLIER_N, 15, SIZE_N, id="n-of-4-bits"),
        pytest.param(PAILLIER_N, 1 << 2047, SIZE_N, id="n-even"),
        pytest.param(PAILLIER_N, (1 << 2048) + 1, LONG, id="n-of-2049-bits"),
        pytest.param(N_TILDE, (1 << 2047) - 1, SIZE_NT, id="nt-of-2047-bits"),
        pytest.param(N_TILDE, 1 << 2047, SIZE_NT, id="nt-even"),
        pytest.param(N_TILDE, (1 << 2048) + 1, LONG, id="nt-of-2049-bits"),
        pytest.param(H1, 1, RANGE_H1, id="h1-is-1"),
        pytest.param(H2, 1, RANGE_H2, id="h2-is-1"),
        pytest.param(H1, 1 << 2048, LONG, id="h1-of-2049-bits"),
        pytest.param(H2, 1 << 2048, LONG, id="h2-of-2049-bits"),
    ],
)
def test_parameters_of_the_wrong_size(v2: Stage, number: int, value: int, detail: str) -> None:
    assert v2.play({COMMIT: setting(number, value)}) == fault("parameters", 2, detail)


def test_parameters_that_do_not_go_together(v2: Stage) -> None:
    own = v2.own[EVIL]
    germain = own["P"]

    def expect(detail: str, **values: int) -> None:
        assert v2.play({COMMIT: saying(**values)}) == fault("parameters", 2, detail)

    expect("h1, h2: equal", h1=own["H2i"])
    expect(RANGE_H1, h1=own["NTildei"])
    expect(RANGE_H2, h2=own["NTildei"])
    expect(RANGE_H1, h1=own["NTildei"] + 4)
    expect(RANGE_H2, h2=own["NTildei"] + 4)
    expect(RANGE_H1, h1=2 * germain + 1)
    expect(RANGE_H2, h2=3 * (2 * germain + 1))
    expect("n_tilde: shares a factor with paillier_n", nt=own["PaillierSK"]["N"])
    expect("n_tilde: shares a factor with paillier_n", n=own["NTildei"])


def saying(**values: int) -> Change:
    numbers = {"n": PAILLIER_N, "nt": N_TILDE, "h1": H1, "h2": H2}

    def change(wire: Wire, _: int) -> Wire:
        for name, value in values.items():
            wire = wire.with_number(numbers[name], value)
        return wire

    return change


@pytest.mark.parametrize("theirs", ["H1i", "H2i"])
@pytest.mark.parametrize("ours", ["h1", "h2"])
def test_a_generator_of_another_party(v2: Stage, ours: str, theirs: str) -> None:
    change = saying(nt=LARGEST_PRIME, **{ours: v2.own[HONEST][theirs]})
    assert v2.play({COMMIT: change}) == fault("parameters", 2, "h1, h2: used by another party")


@pytest.mark.parametrize("theirs", ["n", "nt"])
@pytest.mark.parametrize("ours", ["n", "nt"])
def test_a_modulus_of_another_party(v2: Stage, ours: str, theirs: str) -> None:
    honest = v2.own[HONEST]
    copied = {"n": honest["PaillierSK"]["N"], "nt": honest["NTildei"]}[theirs]
    change = saying(h1=4, h2=9, **{ours: copied})
    assert v2.play({COMMIT: change}) == fault("parameters", 2, "paillier_n, n_tilde: used by another party")


def test_the_later_of_two_that_share_parameters_is_named() -> None:
    other = vectors.pre_parameters()[1]

    copy = saying(nt=other["NTildei"], h1=other["H1i"], h2=other["H2i"])
    assert play_three({3: {COMMIT: copy}}) == fault("parameters", 2, "h1, h2: used by another party", 3)
    only_n = setting(PAILLIER_N, other["PaillierSK"]["N"])
    assert play_three({3: {COMMIT: only_n}}) == fault("parameters", 2, "paillier_n, n_tilde: used by another party", 3)


def test_a_commitment_beyond_256_bits(v2: Stage) -> None:
    detail = "commitment: more than 256 bits"
    assert v2.play({COMMIT: adding(1, 1 << 256)}) == fault("malformed", 2, detail)


# ---- Round 2: dln proofs ----


def test_dln_proofs_made_by_the_book_pass(stage: Stage) -> None:
    def change(wire: Wire, _: int) -> Wire:
        return wire.with_numbers(DLN_1, stage.dln(inverse=False)).with_numbers(DLN_2, stage.dln(inverse=True))

    assert stage.play({COMMIT: change}) is None


@pytest.mark.parametrize("inverse", [False, True], ids=["h2-from-h1", "h1-from-h2"])
@pytest.mark.parametrize(
    "case", ["alpha-beyond-n", "t-beyond-n", "alpha-wrong", "t-wrong", "first-count", "second-count", "last-t-wrong"]
)
def test_dln_proof(stage: Stage, case: str, *, inverse: bool) -> None:
    nt, order = stage.own[EVIL]["NTildei"], stage.own[EVIL]["P"] * stage.own[EVIL]["Q"]
    shift = {
        "alpha-beyond-n": {5: nt},
        "t-beyond-n": {DLN + 9: 5 * order},  # the same power, but more than an honest t
        "alpha-wrong": {5: 1},
        "t-wrong": {DLN + 9: 1},
        "first-count": {0: -1},
        "second-count": {DLN + 1: 1},
        "last-t-wrong": {2 * DLN + 1: 1},
    }[case]
    number = DLN_2 if inverse else DLN_1

    def change(wire: Wire, _: int) -> Wire:
        return wire.with_numbers(number, stage.dln(inverse=inverse, shift=shift))

    detail = f"dlnproof_{2 if inverse else 1}: does not verify"
    assert stage.play({COMMIT: change}) == fault("proof", 2, detail)


@pytest.mark.parametrize(("exponent", "place"), [(0, 1 + 5), (1, DLN + 2 + 5)], ids=["alpha-is-1", "t-is-1"])
def test_dln_proof_with_a_trivial_element(stage: Stage, exponent: int, place: int) -> None:
    # Iteration 5 fits its equation: alpha = 1 and t = x where its bit is 1, alpha = h1 and t = 1 where it is 0.
    bit = 1 - exponent
    tried = (stage.dln(inverse=False, exponents={0: first, 5: exponent}) for first in count(2))
    proof = next(each for each in tried if (each[DLN + 2 + 5] > 1) == bool(bit))
    assert proof[place] == 1
    found = stage.play({COMMIT: lambda wire, _: wire.with_numbers(DLN_1, proof)})
    assert found == fault("proof", 2, "dlnproof_1: does not verify")


def test_dln_proof_hashed_with_other_borders(stage: Stage) -> None:
    # The ambiguity that let an attacker shuffle the alphas after it had seen the challenge.
    proof = stage.dln(inverse=False, hashed_as=provers.recut)
    found = stage.play({COMMIT: lambda wire, _: wire.with_numbers(DLN_1, proof)})
    assert found == fault("proof", 2, "dlnproof_1: does not verify")


def test_dln_proof_of_another_session() -> None:
    # v2 binds these proofs to no session: there, a replayed one is found by what else must be fresh.
    v3 = Stage(core.Protocol.GG18_V3)
    proof = v3.dln(inverse=False, tag=gg18.keygen_ssid((HONEST, EVIL), 1))
    found = v3.play({COMMIT: lambda wire, _: wire.with_numbers(DLN_1, proof)})
    assert found == fault("proof", 2, "dlnproof_1: does not verify")


def test_dln_proof_of_fewer_iterations(v2: Stage) -> None:
    def change(wire: Wire, _: int) -> Wire:
        numbers = wire.numbers(DLN_1)
        return wire.with_numbers(DLN_1, [DLN - 1, *numbers[1:DLN], DLN - 1, *numbers[DLN + 2 : -1]])

    assert v2.play({COMMIT: change}) == fault("malformed", 1, "message: element missing")


def test_dln_proof_for_a_base_times_minus_one(stage: Stage) -> None:
    # h2 = -h1^x: with a combination of the iterations in place of each, it would pass every other time.
    own = stage.own[EVIL]
    nt, order = own["NTildei"], own["P"] * own["Q"]
    h2 = nt - own["H2i"]

    def change(wire: Wire, _: int) -> Wire:
        proof = provers.dln(stage.tag, (own["H1i"], h2), nt, x=own["Alpha"], order=order)
        return wire.with_number(H2, h2).with_numbers(DLN_1, proof)

    assert stage.play({COMMIT: change}) == fault("proof", 2, "dlnproof_1: does not verify")


def test_first_proofs_are_reported_before_second_ones(protocol: Protocol) -> None:
    first, second = adding(DLN_1, 1, 9), adding(DLN_2, 1, 9)
    found = play_three({2: {COMMIT: second}, 3: {COMMIT: first}}, protocol)
    assert found == fault("proof", 2, "dlnproof_1: does not verify", 3)
    found = play_three({2: {COMMIT: second}, 3: {COMMIT: second}}, protocol)
    assert found == fault("proof", 2, "dlnproof_2: does not verify", 2)


# ---- Round 3: opening and points ----

NO_OPENING: Final = "de_commitment: does not open the commitment"
NO_POINT: Final = "de_commitment: not a point of the curve"
SMALL: Final = gg18.point(1, pow(1 + gg18.B, (P + 1) // 4, P))


@pytest.mark.parametrize("place", range(5), ids=["r", "v0.x", "v0.y", "v1.x", "v1.y"])
def test_an_opening_of_something_else(v2: Stage, place: int) -> None:
    assert v2.play({REVEAL: adding(1, 1, place)}) == fault("commitment", 3, NO_OPENING)


def test_an_opening_that_reads_like_the_committed_one(v2: Stage) -> None:
    # The same bytes between "$" signs, cut elsewhere.
    opening = next(each for k in count(1) if b"$" in gg18.i2b((each := [9, *points_of(k, 6)])[1])[1:-1])
    changes = own_polynomial(*opening) | {COMMIT: setting(1, gg18.hash_ints(*provers.recut(opening)))}
    assert v2.play(changes) == fault("commitment", 3, NO_OPENING)


def own_polynomial(*opening: int, share: int | None = None) -> dict[str, Change]:
    def deal(wire: Wire, _: int) -> Wire:
        return wire if share is None else wire.with_number(1, share)

    return {
        COMMIT: setting(1, gg18.hash_ints(*opening)),
        REVEAL: lambda wire, _: wire.with_numbers(1, list(opening)),
        DEAL: deal,
    }


@pytest.mark.parametrize("bad", [0, 1], ids=["v0", "v1"])
@pytest.mark.parametrize(
    "xy", [(1, 1), (SMALL.x + P, SMALL.y), (SMALL.x, SMALL.y + P)], ids=["off-curve", "x-beyond-p", "y-beyond-p"]
)
def test_points_that_are_none(v2: Stage, bad: int, xy: tuple[int, int]) -> None:
    points = [*G, *G]
    points[2 * bad : 2 * bad + 2] = xy
    assert v2.play(own_polynomial(9, *points)) == fault("point", 3, NO_POINT)


def points_of(*coefficients: int) -> list[int]:
    return [coordinate for each in coefficients for coordinate in gg18.total([mul(each, G)])]


def test_a_polynomial_of_ones_own_passes(v2: Stage) -> None:
    # Until round 4: the key is another one, and the recorded Paillier proof is bound to the old one.
    assert v2.play(own_polynomial(9, *points_of(5, 6), share=5 + 6 * HONEST)) == PAILLIER_FAULT


@pytest.mark.parametrize("share", [5 + 6 * EVIL, 5 + 6 * HONEST + Q], ids=["of-another-seat", "not-reduced"])
def test_a_share_that_does_not_fit(v2: Stage, share: int) -> None:
    found = v2.play(own_polynomial(9, *points_of(5, 6), share=share))
    assert found == fault("share", 3, "share: does not fit the opened polynomial")


def honest_polynomial(protocol: Protocol) -> tuple[int, int]:
    """What SEED makes the honest seat draw."""
    with open_honest(protocol) as party:
        (sent,) = party.outgoing()
    commitment = Wire.parse(sent.data).number(1)
    blocks = [hashlib.sha256(SEED + counter.to_bytes(8)).digest() for counter in range(200)]
    drawn = [int.from_bytes(block, "little") for block in blocks]
    # Its polynomial is two scalars drawn one after the other, then the commitment's randomness.
    return next(
        (drawn[i], drawn[i + 1])
        for i in range(len(drawn) - 2)
        if gg18.hash_ints(int.from_bytes(blocks[i + 2]), *points_of(drawn[i], drawn[i + 1])) == commitment
    )


def test_a_polynomial_that_cancels_the_others(v2: Stage) -> None:
    f0, f1 = honest_polynomial(v2.protocol)
    first = own_polynomial(9, *points_of(Q - f0, 6), share=(Q - f0 + 6 * HONEST) % Q)
    second = own_polynomial(9, *points_of(5, Q - f1), share=(5 + (Q - f1) * HONEST) % Q)
    expected = fault("point", 3, "de_commitment: cancels the other polynomials")
    assert v2.play(first) == expected
    assert v2.play(second) == expected


@pytest.mark.parametrize(("seat", "named"), [(HONEST, ()), (EVIL, (EVIL,))], ids=["ours", "a-peers"])
def test_a_polynomial_that_leaves_a_seat_without_a_share(v2: Stage, seat: int, named: tuple[int, ...]) -> None:
    # x_j = 0. Where it is ours, nobody can be named: it is the sum of all that is zero.
    f0, f1 = honest_polynomial(v2.protocol)
    g0 = (-f0 - f1 * seat - 6 * seat) % Q
    changes = own_polynomial(9, *points_of(g0, 6), share=(g0 + 6 * HONEST) % Q)
    assert v2.play(changes) == core.Fault("point", 3, named, "X_j is infinity")


# ---- Round 3: mod proof ----

MOD_FAULT: Final = fault("proof", 3, "modProof: does not verify")
A, B = gg18.MOD_ITERATIONS + 1, gg18.MOD_ITERATIONS + 2  # places of the two bit strings


def modding(stage: Stage, *, shift: provers.Shift | None = None, w: int | None = None, context: bytes = b"") -> Change:
    secret = stage.own[EVIL]["PaillierSK"]

    def change(wire: Wire, _: int) -> Wire:
        proof = provers.mod(context or stage.context(EVIL), secret["P"], secret["Q"], w=w, shift=shift)
        return wire.with_numbers(2, proof)

    return change


def test_a_mod_proof_made_by_the_book_passes(v2: Stage) -> None:
    assert v2.play({REVEAL: modding(v2)}) is None


@pytest.mark.parametrize(
    "case",
    [
        *("w-beyond-n", "x-beyond-n", "z-beyond-n", "x-wrong", "z-wrong", "a-wrong", "b-wrong"),
        *("a-too-long", "b-too-long", "a-too-short", "b-too-short"),
    ],
)
def test_mod_proof(v2: Stage, case: str) -> None:
    n = v2.own[EVIL]["PaillierSK"]["N"]
    w = next(k for k in count(2) if gg18.jacobi(k, n) == -1)
    made = provers.mod(v2.context(EVIL), v2.own[EVIL]["PaillierSK"]["P"], v2.own[EVIL]["PaillierSK"]["Q"], w=w)
    # The smallest: plus N, it still has 2048 bits.
    x, z = (min(places, key=made.__getitem__) for places in (range(1, A), range(B + 1, len(made))))
    shift = {
        "w-beyond-n": {0: n},
        "x-beyond-n": {x: n},
        "z-beyond-n": {z: n},
        "x-wrong": {x: 1},
        "z-wrong": {z: 1},
        "a-wrong": {A: 1},
        "b-wrong": {B: 1},
        "a-too-long": {A: 1 << (gg18.MOD_ITERATIONS + 1)},
        "b-too-long": {B: 1 << (gg18.MOD_ITERATIONS + 1)},
        "a-too-short": {A: -(1 << gg18.MOD_ITERATIONS)},
        "b-too-short": {B: -(1 << gg18.MOD_ITERATIONS)},
    }[case]
    assert all((made[place] + change).bit_length() <= 2048 for place, change in shift.items())
    assert v2.play({REVEAL: modding(v2, shift=shift, w=w)}) == MOD_FAULT


def test_mod_proof_of_another_party_or_session(v2: Stage) -> None:
    assert v2.play({REVEAL: modding(v2, context=v2.context(HONEST))}) == MOD_FAULT
    assert v2.play({REVEAL: modding(v2, context=b"another session")}) == MOD_FAULT


def test_mod_proof_with_w_of_jacobi_symbol_one(v2: Stage) -> None:
    assert v2.play({REVEAL: setting(2, 4)}) == MOD_FAULT


def test_mod_proof_with_w_that_shares_a_factor_with_n(v2: Stage) -> None:
    # Fits every equation: W = 0 modulo p makes every W Y a fourth power there.
    w = 6 * v2.own[EVIL]["PaillierSK"]["P"]
    assert v2.play({REVEAL: modding(v2, w=w)}) == MOD_FAULT


def test_mod_proof_elements_that_are_no_units(v2: Stage) -> None:
    p = v2.own[EVIL]["PaillierSK"]["P"]
    assert v2.play({REVEAL: setting(2, p, 3)}) == MOD_FAULT
    assert v2.play({REVEAL: setting(2, p, B + 3)}) == MOD_FAULT


def test_a_paillier_modulus_that_is_prime(v2: Stage) -> None:
    assert probably_prime(PRIME_2048)
    proof = provers.mod_of_prime(v2.context(EVIL), PRIME_2048)
    changes: dict[str, Change] = {
        COMMIT: setting(PAILLIER_N, PRIME_2048),
        REVEAL: lambda wire, _: wire.with_numbers(2, proof),
    }
    assert v2.play(changes) == MOD_FAULT


def probably_prime(n: int) -> bool:
    return all(gg18.power(base, n - 1, n) == 1 for base in (2, 3, 5))


@pytest.mark.parametrize(
    "primes",
    [(PRIME_161, PRIME_944, PRIME_945), (PRIME_161, PRIME_161, PRIME_1728), (PRIME_5_MOD_8, PRIME_1024)],
    ids=["three-primes", "not-square-free", "not-3-mod-4"],
)
def test_a_paillier_modulus_of_another_shape(v2: Stage, primes: tuple[int, ...]) -> None:
    # Everything in the proof holds that such a modulus lets hold.
    assert all(probably_prime(prime) for prime in primes)
    proof = provers.mod(v2.context(EVIL), *primes)
    changes: dict[str, Change] = {
        COMMIT: setting(PAILLIER_N, prod(primes)),
        REVEAL: lambda wire, _: wire.with_numbers(2, proof),
    }
    assert v2.play(changes) == MOD_FAULT


# ---- Round 3: fac proof ----

FAC_FAULT: Final = fault("proof", 3, "facProof: does not verify")


def facing(
    stage: Stage, choices: Mapping[str, int] | None = None, shift: provers.Shift | None = None, context: bytes = b""
) -> Change:
    secret = stage.own[EVIL]["PaillierSK"]

    def change(wire: Wire, to: int) -> Wire:
        made = provers.fac(context or stage.context(EVIL), secret["P"], secret["Q"], stage.ring(to), choices, shift)
        return wire.with_numbers(2, made)

    return change


def test_a_fac_proof_made_by_the_book_passes(v2: Stage) -> None:
    assert v2.play({DEAL: facing(v2)}) is None


FAC_CASES: Final = {
    "p-beyond": ({}, {0: "nc"}),
    "q-beyond": ({}, {1: "nc"}),
    "a-beyond": ({}, {2: "nc"}),
    "b-beyond": ({}, {3: "nc"}),
    "t-beyond": ({}, {4: "nc"}),
    "sigma-too-large": ({"sigma": "sigma"}, {}),
    "z1-too-large": ({"alpha": "z"}, {}),
    "z2-too-large": ({"beta": "z"}, {}),
    "w1-too-large": ({"x": "w"}, {}),
    "w2-too-large": ({"y": "w"}, {}),
    "v-too-large": ({"r": "v"}, {}),
    **{f"element-{place}-wrong": ({}, {place: "one"}) for place in range(11) if place != 5},
}


@pytest.mark.parametrize("case", FAC_CASES)
def test_fac_proof(v2: Stage, case: str) -> None:
    n0, nc = v2.own[EVIL]["PaillierSK"]["N"], v2.own[HONEST]["NTildei"]
    bounds = {
        "nc": nc,
        "one": 1,
        "sigma": Q * n0 * nc,
        "z": Q**3 << 1024,
        "w": 2 * Q**3 * nc,
        "v": 4 * Q**3 * n0 * nc,
    }
    choices, shift = FAC_CASES[case]
    change = facing(
        v2, {name: bounds[bound] for name, bound in choices.items()}, {place: bounds[b] for place, b in shift.items()}
    )
    assert v2.play({DEAL: change}) == FAC_FAULT


def test_fac_proof_elements_that_are_no_units(v2: Stage) -> None:
    factor = 2 * v2.own[HONEST]["P"] + 1
    for place in range(5):
        assert v2.play({DEAL: setting(2, factor, place)}) == FAC_FAULT


def test_fac_proof_with_another_sigma_than_the_hashed_one(v2: Stage) -> None:
    assert v2.play({DEAL: adding(2, 1, 5)}) == FAC_FAULT


def test_fac_proof_of_another_party_or_session(v2: Stage) -> None:
    assert v2.play({DEAL: facing(v2, context=v2.context(HONEST))}) == FAC_FAULT
    assert v2.play({DEAL: facing(v2, context=b"another session")}) == FAC_FAULT


def test_a_small_factor_gets_past_all_but_the_fac_proof(v2: Stage) -> None:
    # N = small x large satisfies the mod proof; an attacker would learn secrets modulo the small factor.
    small, large = PRIME_161, PRIME_1888
    assert probably_prime(small)
    assert probably_prime(large)
    modded = provers.mod(v2.context(EVIL), small, large)
    changes: dict[str, Change] = {
        COMMIT: setting(PAILLIER_N, small * large),
        REVEAL: lambda wire, _: wire.with_numbers(2, modded),
        DEAL: lambda wire, to: wire.with_numbers(2, provers.fac(v2.context(EVIL), small, large, v2.ring(to))),
    }
    assert v2.play(changes) == FAC_FAULT


# ---- Round 3: several at once; proofs left out ----


def test_all_who_dealt_wrongly_are_named_with_the_first_ones_reason() -> None:
    found = play_three({2: {DEAL: adding(1, 1)}, 3: {REVEAL: adding(1, 1)}})
    assert found == fault("share", 3, "share: does not fit the opened polynomial", 2, 3)


@pytest.mark.parametrize(("kind", "count"), [(DEAL, 11), (REVEAL, 163)], ids=["fac", "mod"])
def test_proofs_cannot_be_left_out(v2: Stage, kind: str, count: int) -> None:
    def filler(wire: Wire, _: int) -> Wire:
        return Wire(wire.type, wire.fields | {2: [b""] * count})

    def absent(wire: Wire, _: int) -> Wire:
        return Wire(wire.type, {number: parts for number, parts in wire.fields.items() if number != 2})

    assert v2.play({kind: filler}) == fault("malformed", 2, "message: empty element")
    assert v2.play({kind: absent}) == fault("malformed", 2, "message: element missing")


# ---- Round 4: Paillier key proof ----


def test_paillier_proof(v2: Stage) -> None:
    n = v2.own[EVIL]["PaillierSK"]["N"]
    pi = recorded(v2.protocol)[PROVE].numbers(1)
    smallest = pi.index(min(pi))
    assert (pi[smallest] + n).bit_length() <= 2048
    assert v2.play({PROVE: adding(1, n, smallest)}) == PAILLIER_FAULT
    assert v2.play({PROVE: adding(1, 1, 12)}) == PAILLIER_FAULT
    assert v2.play({PROVE: setting(1, 1, 4)}) == PAILLIER_FAULT


@pytest.mark.parametrize("other", ["key", "party", "modulus", "nothing"])
def test_paillier_proof_of_another(v2: Stage, other: str) -> None:
    secret = v2.own[3 if other == "modulus" else EVIL]["PaillierSK"]
    f0, _ = honest_polynomial(v2.protocol)
    y = gg18.total([mul(f0, G), gg18.Point(*recorded(v2.protocol)[REVEAL].numbers(1)[1:3])])
    prover = HONEST if other == "party" else EVIL
    proof = provers.paillier(prover, secret["P"], secret["Q"], G if other == "key" else y)
    changes: dict[str, Change] = {PROVE: lambda wire, _: wire.with_numbers(1, proof)}
    assert v2.play(changes) == (None if other == "nothing" else PAILLIER_FAULT)


def test_all_whose_paillier_proof_fails_are_named() -> None:
    wrong = {PROVE: adding(1, 1, 3)}
    assert play_three({2: wrong, 3: wrong}) == fault("proof", 4, "paillier_proof: does not verify", 2, 3)
