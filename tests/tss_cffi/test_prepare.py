"""The search for pre-parameters, by the core that goes into the wheel."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

import tss_cffi
from tests.interop import gg18, vectors
from tests.tss_cffi import seeded
from tests.tss_cffi.protobuf import Wire
from tss_cffi._core import ffi

if TYPE_CHECKING:
    from collections.abc import Iterator

of_the_wheel = pytest.mark.uninstrumented(reason="of the core that goes into the wheel")

V2, V3 = tss_cffi.Protocol.GG18_V2, tss_cffi.Protocol.GG18_V3


@pytest.fixture(scope="module", autouse=True)
def production() -> Iterator[None]:
    tss_cffi.open_arena(8 * 1024 * 1024)
    yield
    tss_cffi.close_arena()


class Kept(NamedTuple):
    """The secrets of a set and h1, as they are kept."""

    p: int
    q: int
    ring_p: int
    ring_q: int
    alpha: int
    h1: int

    @property
    def nt(self) -> int:
        return self.ring_p * self.ring_q

    @property
    def order(self) -> int:
        return (self.ring_p // 2) * (self.ring_q // 2)


HEAD: Final = 7  # what it is, format, protocol, origin
WIDTHS: Final = Kept(128, 128, 128, 128, 256, 256)
SEARCHED: Final = 1


def kept(data: bytes) -> Kept:
    """Take a set apart."""
    starts = [HEAD + sum(WIDTHS[:k]) for k in range(len(WIDTHS))]
    return Kept(*(int.from_bytes(data[at : at + width]) for at, width in zip(starts, WIDTHS, strict=True)))


def sealed(numbers: Kept, origin: int = SEARCHED) -> bytes:
    """A set of one's own, as whole as any."""
    with seeded.prepared(1) as fixture:
        head = seeded.reveal(fixture)[: HEAD - 1]
    body = head + bytes([origin]) + b"".join(n.to_bytes(w) for n, w in zip(numbers, WIDTHS, strict=True))
    return body + hashlib.sha256(body).digest()


def reveal(held: tss_cffi.SecretBytes) -> bytes:
    """A copy of secret bytes, out of the arena of the core that goes into the wheel."""
    return bytes(ffi.buffer(ffi.cast("char *", held.address), len(held)))


class Found(NamedTuple):
    """What a search found, and what it said on the way."""

    prepared: tss_cffi.SecretBytes
    progress: list[int]


@pytest.fixture(scope="module")
def pool() -> Iterator[list[Found]]:
    """Two sets made ahead, by two searches that take turns."""
    searches = [tss_cffi.PreParameterSearch(V2) for _ in range(2)]
    progress: list[list[int]] = [[], []]
    made: dict[int, tss_cffi.SecretBytes] = {}
    while len(made) < len(searches):
        for k, search in enumerate(searches):
            if k not in made:
                found = search.step()
                progress[k].append(search.permille)
                if found is not None:
                    made[k] = found
                    with pytest.raises(ValueError, match="found its set"):
                        search.step()
    yield [Found(made[k], progress[k]) for k in range(len(searches))]
    for found in made.values():
        found.close()


def probably_prime(n: int) -> bool:
    return all(gg18.power(base, n - 1, n) == 1 for base in (2, 3, 5))


@of_the_wheel
def test_sets_hold_what_every_peer_checks(pool: list[Found]) -> None:
    for prepared, progress in pool:
        assert progress == sorted(progress)
        assert progress[-1] == 1000
        assert len(set(progress)) > 10
        assert len(prepared) <= 8 * 1024
        own = kept(reveal(prepared))
        n, h2 = own.p * own.q, gg18.power(own.h1, own.alpha, own.nt)
        for prime in own[:4]:
            assert prime.bit_length() == 1024
            assert probably_prime(prime)
            assert probably_prime(prime // 2)
        assert n.bit_length() == own.nt.bit_length() == 2048
        assert gcd(n, own.nt) == 1
        assert abs(own.p - own.q).bit_length() >= 1021
        assert own.ring_p != own.ring_q
        assert 0 < own.alpha < own.order
        assert gcd(own.alpha, own.order) == 1
        assert 1 < own.h1 < own.nt
        assert 1 < h2 != own.h1
        assert gg18.power(own.h1, own.order, own.nt) == 1
        numbers = (n, own.nt, own.h1, h2)
        assert tss_cffi.prepared_fingerprints(prepared) == [hashlib.sha256(k.to_bytes(256)).digest() for k in numbers]


@of_the_wheel
def test_no_two_sets_share_anything(pool: list[Found]) -> None:
    fingerprints = [each for found in pool for each in tss_cffi.prepared_fingerprints(found.prepared)]
    numbers = [number for found in pool for number in kept(reveal(found.prepared))]
    assert len(fingerprints) == len(set(fingerprints)) == 8
    assert len(numbers) == len(set(numbers)) == 12


@of_the_wheel
def test_a_search_makes_a_set_for_one_keygen(pool: list[Found]) -> None:
    with tss_cffi.SecretBytes(len(pool[0].prepared)) as prepared:
        ffi.memmove(ffi.cast("char *", prepared.address), reveal(pool[0].prepared), len(prepared))
        with tss_cffi.KeygenParty(V3, 2, (1, 2), 2, prepared) as party:
            (sent,) = party.outgoing()
        with pytest.raises(tss_cffi.KeyMaterialRefused):
            tss_cffi.KeygenParty(V3, 2, (1, 2), 2, prepared)
    wire = Wire.parse(sent.data)
    n, nt, h1, h2 = (wire.number(number) for number in (2, 3, 4, 5))
    assert n.bit_length() == nt.bit_length() == 2048
    assert n % 4 == nt % 4 == 1  # both factors are 3 mod 4
    assert gcd(n, nt) == 1
    assert len({h1, h2, 0, 1}) == 4
    ssid = gg18.keygen_ssid((1, 2), 0)
    gg18.verify_dln(ssid, h1, h2, nt, wire.numbers(6))
    gg18.verify_dln(ssid, h2, h1, nt, wire.numbers(7))
    assert gg18.jacobi(h1, nt) == gg18.jacobi(h2, nt) == 1


@of_the_wheel
def test_a_search_can_be_given_up() -> None:
    before = tss_cffi.arena_usage().used
    running = tss_cffi.PreParameterSearch(V2)
    running.step()
    running.close()
    running.close()
    assert tss_cffi.arena_usage().used == before


@of_the_wheel
def test_fixtures_are_refused() -> None:
    with seeded.prepared(1) as fixture, tss_cffi.SecretBytes(len(fixture)) as same:
        ffi.memmove(ffi.cast("char *", same.address), seeded.reveal(fixture), len(fixture))
        for use in (
            lambda: tss_cffi.KeygenParty(V2, 1, (1, 2), 2, same),
            lambda: tss_cffi.prepared_fingerprints(same),
        ):
            with pytest.raises(tss_cffi.KeyMaterialRefused) as caught:
                use()
            assert caught.value.field in {"prepared: origin", "prepared: format"}
    assert not hasattr(tss_cffi._core.lib, "tss_seeded_prepared")
    assert not hasattr(tss_cffi._core.lib, "tss_seeded_randomness")


@pytest.mark.parametrize("place", [0, 4, 5, 7, 600, -1])
def test_a_damaged_set_is_refused(place: int) -> None:
    with seeded.prepared(1) as fixture:
        data = bytearray(seeded.reveal(fixture))
    data[place] ^= 1
    with seeded.secret(bytes(data)) as damaged, pytest.raises(seeded.core.KeyMaterialRefused) as caught:
        seeded.core.KeygenParty(seeded.PROTOCOLS[0], 1, (1, 2), 2, damaged)
    assert caught.value.field.startswith("prepared: ")


# A safe prime of 768 bits (the first Oakley group), and a prime that is not safe.
SAFE_768: Final = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22"
    "514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A3620FFFFFFFFFFFFFFFF",
    16,
)
PRIME_1024: Final = (3 << 1022) + 2087


def weaker(own: Kept) -> dict[str, tuple[Kept, str]]:
    """Sets that must not become a key, and the field that is wrong with them."""
    parameters: list[dict[str, Any]] = vectors.pre_parameters()
    safe = sorted(prime for each in parameters for prime in (each["PaillierSK"]["P"], each["PaillierSK"]["Q"]))
    close = next((a, b) for a, b in pairwise(safe) if (b - a).bit_length() < 1021)
    return {
        "p-too-short": (own._replace(p=SAFE_768), "PaillierSK"),
        "q-too-short": (own._replace(q=SAFE_768), "PaillierSK"),
        "p-not-prime": (own._replace(p=own.p + 4), "PaillierSK"),
        "p-not-safe": (own._replace(p=PRIME_1024), "PaillierSK"),
        "q-not-safe": (own._replace(q=PRIME_1024), "PaillierSK"),
        "p-is-q": (own._replace(p=own.q), "PaillierSK"),
        "p-near-q": (own._replace(p=close[0], q=close[1]), "PaillierSK"),
        "ring-p-too-short": (own._replace(ring_p=SAFE_768), "NTildei"),
        "ring-q-too-short": (own._replace(ring_q=SAFE_768), "NTildei"),
        "ring-p-not-safe": (own._replace(ring_p=PRIME_1024), "NTildei"),
        "ring-q-not-safe": (own._replace(ring_q=PRIME_1024), "NTildei"),
        "ring-p-is-ring-q": (own._replace(ring_p=own.ring_q), "NTildei"),
        "h1-is-0": (own._replace(h1=0), "H1i"),
        "h1-is-1": (own._replace(h1=1), "H1i"),
        "h1-beyond": (own._replace(h1=own.nt + 4), "H1i"),
        "h1-no-square": (own._replace(h1=own.nt - own.h1), "H1i"),
        "h1-of-order-2": (own._replace(h1=own.nt - 1), "H1i"),
        "h1-no-unit": (own._replace(h1=own.ring_p), "H1i"),
        "alpha-is-0": (own._replace(alpha=0), "Alpha"),
        "alpha-no-unit": (own._replace(alpha=own.ring_p // 2), "Alpha"),
        "alpha-beyond": (own._replace(alpha=own.order + 1), "Alpha"),
        "alpha-is-1": (own._replace(alpha=1), "H2i"),
        "moduli-share-a-prime": (own._replace(ring_p=own.p, h1=4, alpha=3), "H2i"),
    }


def test_weaker_sets_are_refused() -> None:
    with seeded.prepared(1) as fixture:
        own = kept(seeded.reveal(fixture))
    with seeded.secret(sealed(own)) as whole:
        assert len(seeded.core.prepared_fingerprints(whole)) == 4
    for name, (numbers, field) in weaker(own).items():
        with seeded.secret(sealed(numbers)) as held, pytest.raises(seeded.core.KeyMaterialRefused) as caught:
            seeded.core.prepared_fingerprints(held)
        assert caught.value.field == field, name


@pytest.mark.parametrize("origin", [0, 3, 255])
def test_a_set_of_unknown_origin_is_refused(origin: int) -> None:
    with seeded.prepared(1) as fixture:
        own = kept(seeded.reveal(fixture))
    with seeded.secret(sealed(own, origin)) as held, pytest.raises(seeded.core.KeyMaterialRefused) as caught:
        seeded.core.KeygenParty(seeded.PROTOCOLS[0], 1, (1, 2), 2, held)
    assert caught.value.field == "prepared: origin"
