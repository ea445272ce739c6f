"""What only a full arena, a caller who goes on, or an attacker who knows better brings about."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.interop import gg18, vectors
from tests.tss_cffi import seeded
from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core, ffi, lib
from tests.tss_cffi.table import Posted, close, hold, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.tss_cffi.table import Change
    from tss_cffi import Fault, Protocol, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

DIGEST = hashlib.sha256(b"to be signed").digest()
HONEST, EVIL = 1, 2
COMMIT_UT = "signing.SignRound7Message"
UT = "signing.SignRound8Message"


def fill_the_arena(held: ExitStack) -> None:
    """Leave no room for another set of pre-parameters."""
    size = 1 << 20
    while size >= 512:
        try:
            held.enter_context(core.SecretBytes(size))
        except core.ArenaFull:
            size //= 2


def test_a_search_that_found_no_room_for_its_set_goes_on_where_it_was() -> None:
    slot = ffi.new("tss_prepare **")
    found = ffi.new("tss_secret **")
    permille = ffi.new("uint16_t *")
    ok, more, memory = 0, 2, 9
    assert lib.tss_prepare_begin(slot, core.Protocol.GG18_V2) == ok
    search = slot[0]
    before = core.arena_usage().used
    try:
        # The first step takes a stack, which stays.
        assert lib.tss_prepare_step(search, found, permille) == more
        with ExitStack() as held:
            fill_the_arena(held)
            while (status := lib.tss_prepare_step(search, found, permille)) == more:
                pass
            assert status == memory
            assert found[0] == ffi.NULL
            assert lib.tss_prepare_step(search, found, permille) == memory
        assert lib.tss_prepare_step(search, found, permille) == ok
        with core.SecretBytes.adopt(found[0]) as first:
            assert len(set(core.prepared_fingerprints(first))) == 4
        # A caller who goes on gets another set, from the beginning.
        assert lib.tss_prepare_step(search, found, permille) == more
        assert permille[0] < 250
        assert found[0] == ffi.NULL
        assert core.arena_usage().used >= before
    finally:
        lib.tss_prepare_free(search)


@pytest.mark.parametrize("name", ["P", "Q"])
def test_an_even_number_is_no_germain_prime(name: str) -> None:
    save = vectors.saves("gg18-v2", 2, 2)[0]
    save[name] -= 1
    with pytest.raises(core.KeyMaterialRefused) as caught:
        seeded.import_save(core.Protocol.GG18_V2, 2, save)
    assert caught.value.field == name


def sign_replayed(shares: Mapping[int, Share], changes: Mapping[str, Change], log: list[Posted]) -> dict[int, Fault]:
    """A signing in which every seat draws the same each time, as long as it is told the same."""
    seeded.randomness(b"\x55" * 32)
    try:
        seats = seat_signing(shares, (HONEST, EVIL), DIGEST)
        faults = hold(seats, changes={EVIL: changes}, log=log).faults
        close(seats)
    finally:
        seeded.randomness(None)
    return faults


def said(log: list[Posted], kind: str) -> list[Wire]:
    return [wire for posted in log if posted.sender == HONEST and (wire := Wire.parse(posted.data)).type == kind]


def test_sums_of_u_and_t_at_infinity_release_no_signature_share(recorded: Recorded) -> None:
    # Whoever knew what the honest seat has committed to could make both sums vanish, whatever they stand for.
    shares = recorded(core.Protocol.GG18_V2, 2, 2)
    log: list[Posted] = []
    assert sign_replayed(shares, {}, log) == {}
    (honest,) = said(log, UT)
    _, ux, uy, tx, ty = honest.numbers(1)
    cancelling = [9, ux, gg18.P - uy, tx, gg18.P - ty]
    log.clear()
    faults = sign_replayed(
        shares,
        {
            COMMIT_UT: lambda wire, _: wire.with_number(1, gg18.hash_ints(*cancelling)),
            UT: lambda wire, _: wire.with_numbers(1, cancelling),
        },
        log,
    )
    assert faults[HONEST] == core.Fault("inconsistent", 9, (), "the sums of U and T differ")
    assert said(log, "signing.SignRound9Message") == []
