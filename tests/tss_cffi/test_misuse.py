"""Each argument wrong in each way, refused by name: through the Python face; through the C one with NULL pointers."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tss_cffi import Protocol, SecretBytes, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

V2, V3 = core.Protocol.GG18_V2, core.Protocol.GG18_V3
DIGEST: Final = bytes(32)
MISUSE: Final = 7


@pytest.fixture
def share(recorded: Recorded) -> Share:
    return recorded(V2, 2, 3)[2]


@pytest.fixture
def prepared() -> Iterator[SecretBytes]:
    with seeded.prepared(1) as own:
        yield own


def keygen(prepared: SecretBytes | None, **changed: Any) -> None:  # noqa: ANN401 - whatever a caller may get wrong
    arguments: dict[str, Any] = {"protocol": V2, "seat": 1, "seats": (1, 2, 3), "threshold": 2, "prepared": prepared}
    core.KeygenParty(**arguments | changed).close()


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("protocol", {"protocol": 0}),
        ("protocol", {"protocol": 3}),
        ("protocol", {"protocol": 2**31 - 1}),
        ("protocol", {"protocol": 2**32 + 1}),
        ("protocol", {"protocol": -1}),
        ("seats", {"seats": ()}),
        ("seats", {"seats": (1,)}),
        ("seats", {"seats": (0, 1)}),
        ("seats", {"seats": (1, 1)}),
        ("seats", {"seats": (2, 1)}),
        ("seats", {"seats": (1, 65536)}),
        ("seats", {"seats": (1, -1)}),
        ("seats", {"seats": tuple(range(1, 34))}),
        ("seat", {"seat": 0}),
        ("seat", {"seat": 4}),
        ("seat", {"seat": 65536}),
        ("seat", {"seat": -1}),
        ("seat", {"seat": 2**32 + 1}),
        ("threshold", {"threshold": 0}),
        ("threshold", {"threshold": 1}),
        ("threshold", {"threshold": 4}),
        ("threshold", {"threshold": 65536}),
        ("threshold", {"threshold": 65538}),
        ("threshold", {"threshold": -1}),
        ("session32", {"session": bytes(32)}),
        ("session32", {"session": bytes(31)}),
        ("session32", {"protocol": V3, "session": bytes(33)}),
    ],
)
def test_keygen(prepared: SecretBytes, argument: str, changed: dict[str, Any]) -> None:
    before = seeded.reveal(prepared)
    with pytest.raises(core.Misuse) as caught:
        keygen(prepared, **changed)
    assert caught.value.argument == argument
    assert seeded.reveal(prepared) == before


def test_keygen_without_pre_parameters() -> None:
    with pytest.raises(core.Misuse) as caught:
        keygen(None)
    assert caught.value.argument == "prepared"


def test_keygen_spends_its_pre_parameters(prepared: SecretBytes) -> None:
    keygen(prepared)
    assert not any(seeded.reveal(prepared))
    with pytest.raises(core.KeyMaterialRefused) as caught:
        keygen(prepared)
    assert caught.value.field == "prepared: format"


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("signers", {"signers": ()}),
        ("signers", {"signers": (2,)}),
        ("signers", {"signers": (1, 3)}),
        ("signers", {"signers": (2, 1)}),
        ("signers", {"signers": (2, 2)}),
        ("signers", {"signers": (2, 4)}),
        ("signers", {"signers": (0, 2)}),
        ("signers", {"signers": (1, 2, 3, 4)}),
        ("signers", {"signers": (2, 65536)}),
        ("digest32", {"digest": bytes(31)}),
        ("digest32", {"digest": bytes(33)}),
        ("session32", {"session": bytes(32)}),
        ("session32", {"session": b""}),
    ],
)
def test_signing(share: Share, argument: str, changed: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"share": share, "signers": (1, 2), "digest": DIGEST}
    with pytest.raises(core.Misuse) as caught:
        core.SigningParty(**arguments | changed)
    assert caught.value.argument == argument


def test_fewer_signers_than_the_threshold(recorded: Recorded) -> None:
    with pytest.raises(core.Misuse) as caught:
        core.SigningParty(recorded(V2, 3, 5)[2], (1, 2), DIGEST)
    assert caught.value.argument == "signers"


def test_receive(share: Share) -> None:
    with core.SigningParty(share, (1, 2), DIGEST) as party:
        for argument, sender, data, message_class in (
            ("data_len", 2, bytes(256 * 1024 + 1), 2),
            ("class_", 2, b"", 0),
            ("class_", 2, b"", 3),
            ("class_", 2, b"", -1),
            ("class_", 2, b"", 2**32 + 1),
            ("from", -1, b"", 1),
            ("from", 2**32 + 2, b"", 1),
        ):
            with pytest.raises(core.Misuse) as caught:
                party.receive(sender, message_class, data)  # type: ignore[arg-type]
            assert caught.value.argument == argument
        assert party.fault() is None


@pytest.mark.parametrize("threshold", [-1, 0, 1, 33, 65538])
def test_import_threshold(threshold: int) -> None:
    with seeded.secret(b"{}") as text, pytest.raises(core.Misuse) as caught:
        core.Share.import_foreign(V2, threshold, text)
    assert caught.value.argument == "threshold"


@pytest.mark.parametrize("protocol", [-1, 0, 3, 2**32 + 1])
def test_protocol(protocol: Any) -> None:  # noqa: ANN401 - whatever a caller may get wrong
    with seeded.secret(b"{}") as text, pytest.raises(core.Misuse) as caught:
        core.Share.import_foreign(protocol, 2, text)
    assert caught.value.argument == "protocol"
    with pytest.raises(core.Misuse) as caught:
        core.PreParameterSearch(protocol)
    assert caught.value.argument == "protocol"


@pytest.mark.parametrize("length", [-1, 0, 1024 * 1024 + 1, 2**64 + 1])
def test_secret_length(length: int) -> None:
    with pytest.raises(core.Misuse) as caught:
        core.SecretBytes(length)
    assert caught.value.argument == "len"


def test_a_secret_that_was_wiped_has_neither_place_nor_length() -> None:
    secret = core.SecretBytes(32)
    assert len(secret) == 32
    secret.close()
    for use in (len, lambda wiped: wiped.address, lambda wiped: wiped.handle):
        with pytest.raises(ValueError, match="wiped already"):
            use(secret)
    assert repr(secret) == "<SecretBytes, wiped>"


def test_the_arena_is_made_once_and_left_empty(share: Share) -> None:
    with pytest.raises(core.Misuse) as caught:
        core.open_arena(2 * 1024 * 1024)
    assert caught.value.argument == "tss_open: made already"
    with pytest.raises(core.Misuse) as caught:
        core.close_arena()
    assert caught.value.argument == "tss_close: an object is left"
    core.SigningParty(share, (1, 2), DIGEST).close()  # all goes on as before
    for size in (-1, 0, 1024 * 1024 - 1, 2**30 + 1, 2**64 + 2**21):
        with pytest.raises(core.Misuse) as caught:
            core.open_arena(size)
        assert caught.value.argument == "arena_len"


def test_a_full_arena_is_reported() -> None:
    held: list[SecretBytes] = []
    with pytest.raises(core.ArenaFull):
        held.extend(core.SecretBytes(1024 * 1024) for _ in range(1000))
    for secret in held:
        secret.close()


def test_a_ceremony_that_finds_no_room_frees_what_it_took(recorded: Recorded) -> None:
    share = recorded(V2, 2, 2)[1]
    before = core.arena_usage().used
    held: list[SecretBytes] = []
    corner = core.SecretBytes(256 * 1024)
    for size in (1024 * 1024, 64 * 1024, 16 * 1024, 4096, 1024):
        with pytest.raises(core.ArenaFull):
            held.extend(core.SecretBytes(size) for _ in range(1000))
    # What is free now is one corner, and is given back bit by bit, so that there is no room at one point after another.
    corner.close()
    with pytest.raises(core.ArenaFull):
        held.extend(core.SecretBytes(2048) for _ in range(1000))
    refused = 0
    while held:
        held.pop().close()
        try:
            core.SigningParty(share, (1, 2), DIGEST).close()
        except core.ArenaFull:
            refused += 1
        else:
            break
    for secret in held:
        secret.close()
    assert refused > 10
    assert core.arena_usage().used == before


def test_wiped_objects_are_refused() -> None:
    share = seeded.shares(V2, 2, 2)
    party = core.SigningParty(share[1], (1, 2), DIGEST)
    party.close()
    party.close()
    with pytest.raises(ValueError, match="wiped"):
        party.outgoing()
    for each in share.values():
        each.close()
        each.close()
    with pytest.raises(ValueError, match="wiped"):
        core.SigningParty(share[1], (1, 2), DIGEST)
    secret = core.SecretBytes(8)
    assert repr(secret) == "<SecretBytes, 8 bytes>"
    secret.close()
    assert repr(secret) == "<SecretBytes, wiped>"
    with pytest.raises(ValueError, match="wiped"):
        _ = secret.address


def test_secrets_are_not_pickled(share: Share, prepared: SecretBytes) -> None:
    with core.SigningParty(share, (1, 2), DIGEST) as party:
        for secret in (share, prepared, party):
            with pytest.raises(TypeError, match="leave the process"):
                pickle.dumps(secret)


# ---- The C face: every pointer NULL ----


def pointers(share: Share, prepared: SecretBytes, party: Any) -> dict[str, tuple[list[Any], dict[int, str]]]:  # noqa: ANN401
    """Of each function: good arguments, and by place the pointers that must not be NULL, with their names."""
    out: Any = ffi.new
    seats = out("uint32_t[]", [1, 2])
    bytes64 = out("uint8_t[]", 4096)
    held = share.handle
    return {
        "tss_secret_new": ([out("tss_secret **"), 8], {0: "secret"}),
        "tss_prepare_begin": ([out("tss_prepare **"), V2], {0: "prepare"}),
        "tss_prepare_step": (
            [ffi.NULL, out("tss_secret **"), out("uint16_t *")],
            {0: "prepare", 1: "prepared", 2: "permille"},
        ),
        "tss_prepared_fingerprints": (
            [bytes64, out("size_t *", 128), prepared.handle],
            {0: "out32", 1: "len", 2: "prepared"},
        ),
        "tss_share_fingerprints": ([bytes64, out("size_t *", 128), held], {0: "out32", 1: "len", 2: "share"}),
        "tss_share_load": ([out("tss_share **"), prepared.handle], {0: "share", 1: "bytes"}),
        "tss_share_load_proven": ([out("tss_share **"), prepared.handle], {0: "share", 1: "bytes"}),
        "tss_share_import": ([out("tss_secret **"), V2, 2, prepared.handle], {0: "bytes", 3: "foreign"}),
        "tss_keygen_begin": (
            [out("tss_party **"), V2, 1, seats, 2, 2, prepared.handle, ffi.NULL],
            {0: "party", 3: "seats", 6: "prepared"},
        ),
        "tss_signing_begin": (
            [out("tss_party **"), held, seats, 2, bytes64, ffi.NULL],
            {0: "party", 1: "share", 2: "signers", 4: "digest32"},
        ),
        "tss_party_receive": ([party, 1, 1, bytes64, 4], {0: "party", 3: "data"}),
        "tss_party_outgoing": ([party, out("tss_message *")], {0: "party", 1: "message"}),
        "tss_keygen_result": ([party, out("tss_secret **")], {0: "party", 1: "bytes"}),
        "tss_signing_result": (
            [party, out("uint8_t[64]"), out("uint8_t *")],
            {0: "party", 1: "signature64", 2: "recovery_id"},
        ),
    }


def test_null_pointers_are_refused_by_name(share: Share, prepared: SecretBytes) -> None:
    with core.SigningParty(share, (1, 2), DIGEST) as party:
        for function, (arguments, names) in pointers(share, prepared, party.handle).items():
            for place, name in names.items():
                spoilt = [*arguments[:place], ffi.NULL, *arguments[place + 1 :]]
                assert getattr(lib, function)(*spoilt) == MISUSE, (function, name)
                assert ffi.string(lib.tss_last_misuse()).decode() == name
        assert party.fault() is None


def test_outputs_are_cleared_before_anything_is_refused(share: Share) -> None:
    party = ffi.new("tss_party **", ffi.cast("tss_party *", 1))
    assert lib.tss_signing_begin(party, share.handle, ffi.NULL, 0, ffi.NULL, ffi.NULL) == MISUSE
    assert party[0] == ffi.NULL
    rs = ffi.new("uint8_t[64]", b"\xff" * 64)
    assert lib.tss_signing_result(ffi.NULL, rs, ffi.new("uint8_t *")) == MISUSE
    assert not any(bytes(ffi.buffer(rs)))


def test_null_is_harmless_where_nothing_is_returned() -> None:
    for function in ("tss_secret_free", "tss_prepare_free", "tss_share_free", "tss_party_free"):
        getattr(lib, function)(ffi.NULL)
    lib.tss_arena_usage(ffi.NULL)
    lib.tss_share_describe(ffi.NULL, ffi.NULL)
    lib.tss_party_fault(ffi.NULL, ffi.NULL)
    lib.tss_party_round(ffi.NULL, ffi.NULL, ffi.NULL)
    assert lib.tss_party_waits_for(ffi.NULL) == 0
    assert lib.tss_secret_data(ffi.NULL) == ffi.NULL
    assert lib.tss_secret_len(ffi.NULL) == 0
    assert core.PartyState(lib.tss_party_state(ffi.NULL)) is core.PartyState.FAILED


def test_room_for_fingerprints(share: Share) -> None:
    room = ffi.new("size_t *", 11)
    assert lib.tss_share_fingerprints(ffi.new("uint8_t[]", 32 * 11), room, share.handle) == MISUSE
    assert ffi.string(lib.tss_last_misuse()) == b"len"
    assert room[0] == 0


def test_reasons_have_names() -> None:
    names = [ffi.string(lib.tss_reason_name(reason)).decode() for reason in range(14)]
    assert names[0] == "none"
    assert names[13] == "unknown"
    assert len(set(names)) == 14
