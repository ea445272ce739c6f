"""Checks that another one makes first, so that no ceremony reaches them: their verifiers are asked directly."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop import gg18, vectors
from tests.tss_cffi import provers
from tests.tss_cffi.programs import SANITIZED, compile_program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


pytestmark = pytest.mark.uninstrumented(reason="a program of its own, with the sanitizers")

# Primes = 3 mod 4, by their bits.
PRIME_1023: Final = (3 << 1021) + 191
PRIME_1024: Final = (3 << 1022) + 2087
PRIME_2047: Final = (5 << 2044) + 4359  # = 2 mod 3, so that 3 times it is coprime to its phi
SESSION: Final = b"session"
EVIL: Final = 2

Case = tuple[int, int, list[int]]
"""Which proof, N, its elements."""


def encoded(case: Case) -> bytes:
    def sized(number: int) -> bytes:
        data = gg18.i2b(number)
        return len(data).to_bytes(2) + data

    proof, n, elements = case
    return bytes([proof]) + sized(n) + len(elements).to_bytes(2) + b"".join(map(sized, elements))


@pytest.fixture(scope="module")
def verify(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Case]], list[bool]]:
    folder = tmp_path_factory.mktemp("second-line")
    program = compile_program("second_line", folder, "gcc", "-O1", *SANITIZED, "-DTSS_SEEDED")
    (folder / "parameters").write_text(vectors.compact(vectors.pre_parameters()[0]), encoding="ascii")

    def run(cases: Sequence[Case]) -> list[bool]:
        (folder / "cases").write_bytes(b"".join(map(encoded, cases)))
        command = [str(program), str(folder / "parameters"), str(folder / "cases")]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line == "1" for line in told.splitlines()]

    return run


def paillier(p: int, q: int) -> Case:
    return 0, p * q, provers.paillier(EVIL, p, q, gg18.G)


def mod(*primes: int) -> Case:
    n = 1
    for prime in primes:
        n *= prime
    return 1, n, provers.mod(SESSION, *primes)


def fac(p: int, q: int) -> Case:
    own = vectors.pre_parameters()[0]
    ring = gg18.Ring(own["NTildei"], own["H1i"], own["H2i"], hashed=True)
    return 2, p * q, provers.fac(SESSION, p, q, ring)


def test_moduli_that_are_short_or_have_a_small_factor(verify: Callable[[Sequence[Case]], list[bool]]) -> None:
    assert (PRIME_1024 * PRIME_1023).bit_length() == 2047
    assert (3 * PRIME_2047).bit_length() == 2048
    other = vectors.pre_parameters()[1]["PaillierSK"]["P"]
    good = [paillier(PRIME_1024, other), mod(PRIME_1024, other), fac(PRIME_1024, other)]
    bad = [paillier(3, PRIME_2047), mod(PRIME_1024, PRIME_1023), fac(PRIME_1024, PRIME_1023)]
    assert verify([*good, *bad]) == [True] * len(good) + [False] * len(bad)


def test_plaintexts_that_no_answer_can_have(verify: Callable[[Sequence[Case]], list[bool]]) -> None:
    key = vectors.pre_parameters()[0]["PaillierSK"]
    n, edge = key["P"] * key["Q"], 2 * gg18.Q**7

    def plaintext(signed: int) -> Case:
        return 3, n, [signed % n, signed % gg18.Q]

    good = [0, 1, gg18.Q + 1, gg18.Q**6, edge - 1, -1, -gg18.Q, 5 - gg18.Q**7, 1 - edge]
    bad = [edge, edge + 1, n // 2, -edge, -edge - 1]
    assert verify([plaintext(signed) for signed in [*good, *bad]]) == [True] * len(good) + [False] * len(bad)
