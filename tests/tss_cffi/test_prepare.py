"""The search for pre-parameters, by the core that goes into the wheel."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import pytest

import tss_cffi
from tests.interop import gg18
from tests.tss_cffi import seeded
from tests.tss_cffi.protobuf import Wire
from tss_cffi._core import ffi

if TYPE_CHECKING:
    from collections.abc import Iterator

V2, V3 = tss_cffi.Protocol.GG18_V2, tss_cffi.Protocol.GG18_V3


@pytest.fixture(scope="module", autouse=True)
def production() -> Iterator[None]:
    tss_cffi.open_arena(8 * 1024 * 1024)
    yield
    tss_cffi.close_arena()


def search() -> tuple[tss_cffi.SecretBytes, list[int]]:
    progress = []
    with tss_cffi.PreParameterSearch(V2) as running:
        while (found := running.step()) is None:
            progress.append(running.permille)
        with pytest.raises(ValueError, match="found its set"):
            running.step()
    return found, progress


def test_a_search_makes_a_set_for_one_keygen() -> None:
    found, progress = search()
    with found as prepared:
        assert progress == sorted(progress)
        assert all(0 <= permille < 1000 for permille in progress)
        assert len(prepared) <= 8 * 1024
        assert len(set(tss_cffi.prepared_fingerprints(prepared))) == 4
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


def test_a_search_can_be_given_up() -> None:
    before = tss_cffi.arena_usage().used
    running = tss_cffi.PreParameterSearch(V2)
    running.step()
    running.close()
    running.close()
    assert tss_cffi.arena_usage().used == before


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
