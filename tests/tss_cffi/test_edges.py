"""What only a full arena, a caller who goes on, or an attacker who knows better brings about."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.tss_cffi.seeded import core, ffi, lib


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
