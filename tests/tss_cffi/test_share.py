"""Shares: our bytes, tss-lib's save data, and everything about either that can contradict itself."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop import vectors
from tests.interop.gg18 import G, P, Q, mul
from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from tss_cffi import Protocol, SecretBytes, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]
    Bend = Callable[[dict[str, Any]], None]

V2, V3 = core.Protocol.GG18_V2, core.Protocol.GG18_V3


def save(seat: int = 2, t: int = 2, n: int = 3) -> dict[str, Any]:
    return copy.deepcopy(vectors.saves("gg18-v2", t, n)[seat - 1])


def import_text(text: bytes, threshold: int = 2) -> SecretBytes:
    with seeded.secret(text) as foreign:
        return core.Share.import_foreign(V2, threshold, foreign)


def refused_import(text: bytes, threshold: int = 2) -> str:
    with pytest.raises(core.KeyMaterialRefused) as caught:
        import_text(text, threshold)
    return caught.value.field


def refused_load(data: bytes, *, prove: bool = True) -> str:
    with seeded.secret(data) as held, pytest.raises(core.KeyMaterialRefused) as caught:
        core.Share(held, prove=prove)
    return caught.value.field


def with_digest(content: bytes | bytearray) -> bytes:
    return bytes(content) + hashlib.sha256(content).digest()


@pytest.mark.parametrize(("threshold", "parties"), [(2, 2), (2, 3), (3, 5)])
def test_tss_libs_save_data_comes_back_as_it_was(protocol: Protocol, threshold: int, parties: int) -> None:
    for seat, original in enumerate(vectors.saves(protocol.label, threshold, parties), start=1):
        with seeded.import_save(protocol, threshold, original) as data, core.Share(data) as share:
            assert share.info[:4] == (protocol, threshold, parties, seat)
            exported = seeded.export(share)
            order = original["P"] * original["Q"]
            # tss-lib draws alpha below N~; only its residue counts, and that is what we keep.
            assert exported == original | {"Alpha": original["Alpha"] % order, "Beta": original["Beta"] % order}
            assert list(exported) == list(original)


def test_fingerprints_of_all_parties(recorded: Recorded) -> None:
    shares = recorded(V2, 2, 3)
    prints = {tuple(share.fingerprints()) for share in shares.values()}
    assert len(prints) == 1
    (own,) = prints
    assert len(own) == len(set(own)) == 12
    with seeded.prepared(2) as prepared:
        assert core.prepared_fingerprints(prepared) == list(own[4:8])


def test_the_digest_covers_what_the_parties_must_agree_on(recorded: Recorded) -> None:
    digests = {recorded(protocol, t, n)[1].info.digest for protocol in (V2, V3) for t, n in ((2, 2), (2, 3), (3, 5))}
    assert len(digests) == 6
    assert len({share.info.digest for share in recorded(V2, 3, 5).values()}) == 1


# ---- Our bytes ----


@pytest.fixture(scope="module")
def ours() -> bytes:
    with seeded.import_save(V2, 2, save()) as data:
        return seeded.reveal(data)


def test_a_share_is_small(ours: bytes) -> None:
    assert len(ours) < 8 * 1024


HEAD = 6  # what it is, format, protocol
FIELDS = {
    "magic": (0, "format"),
    "kind": (3, "format"),
    "format": (4, "format"),
    "protocol": (5, "format"),
    "threshold": (HEAD, "format"),
    "parties": (HEAD + 2, "format"),
    "own": (HEAD + 4, "format"),
    "x": (HEAD + 6 + 31, "Xi"),
    "p": (HEAD + 38 + 127, "PaillierSK"),
    "q": (HEAD + 38 + 255, "PaillierSK"),
    "ring p": (HEAD + 38 + 383, "NTildei"),
    "ring q": (HEAD + 38 + 511, "NTildei"),
    "alpha": (HEAD + 38 + 767, ""),
    "h1": (HEAD + 38 + 1023, ""),
    "Y": (HEAD + 38 + 1024 + 1, ""),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_was_changed_on_purpose(ours: bytes, name: str) -> None:
    place, expected = FIELDS[name]
    changed = bytearray(ours[:-32])
    changed[place] ^= 0x40
    found = refused_load(bytes(changed) + hashlib.sha256(changed).digest())
    assert found == expected or not expected


def test_an_alpha_without_inverse(ours: bytes) -> None:
    changed = bytearray(ours[:-32])
    changed[HEAD + 38 + 512 : HEAD + 38 + 768] = bytes(256)
    assert refused_load(bytes(changed) + hashlib.sha256(changed).digest()) == "Alpha"


BOTH_WAYS = pytest.mark.parametrize("prove", [True, False], ids=["prove", "proven before"])


@BOTH_WAYS
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(ours: bytes, prove: bool, place: float, bit: int) -> None:  # noqa: FBT001
    changed = bytearray(ours)
    changed[int(place * len(ours))] ^= 1 << bit
    refused_load(bytes(changed), prove=prove)


@BOTH_WAYS
@pytest.mark.parametrize("length", [1, 5, 6, 11, 12, 40, 100, 1000, 2000, -1])
def test_a_share_cut_short(ours: bytes, prove: bool, length: int) -> None:  # noqa: FBT001
    refused_load(ours[:length], prove=prove)


@BOTH_WAYS
def test_a_share_with_more_behind_it(ours: bytes, prove: bool) -> None:  # noqa: FBT001
    assert refused_load(ours + b"\0", prove=prove) == "format"


# ---- Bytes that were proven before: what is checked of them all the same ----

SECRETS = HEAD + 38  # p, q, the ring's primes, alpha, h1
PUBLIC_KEY = SECRETS + 1024
MEMBERS = PUBLIC_KEY + 33
MEMBER = 4 + 33 + 4 * 256  # seat, X, N, N~, h1, h2
OWN = 1  # index of the seat that `save` takes


def number(content: bytes | bytearray, place: int, length: int) -> int:
    return int.from_bytes(content[place : place + length], "big")


def put_number(content: bytearray, place: int, length: int, value: int) -> None:
    content[place : place + length] = value.to_bytes(length, "big")


def in_member(index: int, field: str) -> tuple[int, int]:
    """Place and length of a number of a party."""
    place, length = {
        "seat": (0, 4),
        "X": (4, 33),
        "N": (37, 256),
        "NT": (293, 256),
        "h1": (549, 256),
        "h2": (805, 256),
    }[field]
    return MEMBERS + MEMBER * index + place, length


def composite(ours: bytes, prime: str) -> bytes:
    """A share in which one of the four primes is none, and everything else that is stated fits that."""
    changed = bytearray(ours[:-32])
    first = SECRETS + (0 if prime in "pq" else 256)
    place = first + (0 if prime in ("p", "ring p") else 128)
    put_number(changed, place, 128, number(changed, place, 128) + 8)  # 3 modulo 4 as before
    product = number(changed, first, 128) * number(changed, first + 128, 128)
    put_number(changed, *in_member(OWN, "N" if first == SECRETS else "NT"), product)
    return with_digest(changed)


def test_a_share_that_was_proven_loads_as_it_did(ours: bytes) -> None:
    with seeded.secret(ours) as held, core.Share(held) as share, core.Share(held, prove=False) as again:
        assert again.info == share.info
        assert seeded.export(again) == seeded.export(share)
        assert again.fingerprints() == share.fingerprints()


@pytest.mark.parametrize(
    ("prime", "field"), [("p", "PaillierSK"), ("q", "PaillierSK"), ("ring p", "NTildei"), ("ring q", "NTildei")]
)
def test_a_prime_that_is_none_is_found_by_proving(ours: bytes, prime: str, field: str) -> None:
    changed = composite(ours, prime)
    assert refused_load(changed) == field
    with seeded.secret(changed) as held, core.Share(held, prove=False) as share:  # why it is for proven bytes alone
        assert share.info.public_key == changed[PUBLIC_KEY : PUBLIC_KEY + 33]


def twice(place: int, other: int, length: int) -> Callable[[bytearray], None]:
    def bend(content: bytearray) -> None:
        content[place : place + length] = content[other : other + length]

    return bend


def set_number(place: int, length: int, value: int) -> Callable[[bytearray], None]:
    return lambda content: put_number(content, place, length, value)


def flip(place: int, mask: int) -> Callable[[bytearray], None]:
    def bend(content: bytearray) -> None:
        content[place] ^= mask

    return bend


UNPROVEN: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "threshold above n": (set_number(HEAD, 2, 4), "format"),
    "threshold of one": (set_number(HEAD, 2, 1), "format"),
    "n above all": (set_number(HEAD + 2, 2, 33), "format"),
    "n of one": (set_number(HEAD + 2, 2, 1), "format"),
    "own seat outside": (set_number(HEAD + 4, 2, 3), "format"),
    "own seat is another's": (set_number(HEAD + 4, 2, 0), "NTildej"),
    "x is zero": (set_number(HEAD + 6, 32, 0), "Xi"),
    "x is the order": (set_number(HEAD + 6, 32, Q), "Xi"),
    "x of another": (set_number(HEAD + 6, 32, 5), "Xi"),
    "p even": (flip(SECRETS + 127, 1), "PaillierSK"),
    "p one modulo four": (flip(SECRETS + 127, 2), "PaillierSK"),
    "p short": (flip(SECRETS, 0x80), "PaillierSK"),
    "p another": (flip(SECRETS + 127, 8), "NTildej"),
    "q is p": (twice(SECRETS + 128, SECRETS, 128), "PaillierSK"),
    "q zero": (set_number(SECRETS + 128, 128, 0), "PaillierSK"),
    "q close to p": (twice(SECRETS + 128, SECRETS, 64), "PaillierSK"),
    "ring p even": (flip(SECRETS + 383, 1), "NTildei"),
    "ring p another": (flip(SECRETS + 383, 8), "NTildej"),
    "ring q is ring p": (twice(SECRETS + 384, SECRETS + 256, 128), "NTildei"),
    "alpha zero": (set_number(SECRETS + 512, 256, 0), "Alpha"),
    "alpha above the order": (set_number(SECRETS + 512, 256, (1 << 2048) - 1), "Alpha"),
    "h1 another": (flip(SECRETS + 1023, 1), "NTildej"),
    "public key no point": (set_number(PUBLIC_KEY, 33, 5), "format"),
    "seat zero": (set_number(*in_member(0, "seat"), 0), "Ks"),
    "seat twice": (set_number(*in_member(2, "seat"), 2), "Ks"),
    "seat too large": (set_number(*in_member(2, "seat"), 65536), "Ks"),
    "another's X no point": (set_number(*in_member(2, "X"), 5), "format"),
    "own X another's": (twice(in_member(OWN, "X")[0], in_member(2, "X")[0], 33), "Xi"),
    "another's N even": (flip(sum(in_member(2, "N")) - 1, 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's N short": (flip(in_member(2, "N")[0], 0x80), "PaillierPKs, NTildej, H1j or H2j"),
    "another's N~ even": (flip(sum(in_member(2, "NT")) - 1, 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's N~ short": (flip(in_member(2, "NT")[0], 0x80), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h1 one": (set_number(*in_member(2, "h1"), 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h1 above N~": (set_number(*in_member(2, "h1"), (1 << 2048) - 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h2 one": (set_number(*in_member(2, "h2"), 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h2 above N~": (set_number(*in_member(2, "h2"), (1 << 2048) - 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h2 is its h1": (
        twice(in_member(2, "h2")[0], in_member(2, "h1")[0], 256),
        "PaillierPKs, NTildej, H1j or H2j",
    ),
    "own h2 above N~": (set_number(*in_member(OWN, "h2"), (1 << 2048) - 1), "PaillierPKs, NTildej, H1j or H2j"),
    "N of two": (
        twice(in_member(2, "N")[0], in_member(0, "N")[0], 256),
        "PaillierPKs, NTildej, H1j or H2j: used twice",
    ),
    "own N": (flip(sum(in_member(OWN, "N")) - 1, 8), "NTildej"),
    "own N~": (flip(sum(in_member(OWN, "NT")) - 1, 8), "NTildej"),
}


@pytest.mark.parametrize("case", UNPROVEN)
def test_what_is_refused_although_it_was_proven_before(ours: bytes, case: str) -> None:
    bend, field = UNPROVEN[case]
    changed = bytearray(ours[:-32])
    bend(changed)
    assert refused_load(with_digest(changed), prove=False) == field
    refused_load(with_digest(changed))


@BOTH_WAYS
def test_pre_parameters_are_no_share_either_way(prove: bool) -> None:  # noqa: FBT001
    with seeded.prepared(1) as prepared:
        assert refused_load(seeded.reveal(prepared), prove=prove) == "format"


def test_pre_parameters_are_no_share() -> None:
    with seeded.prepared(1) as prepared, pytest.raises(core.KeyMaterialRefused) as caught:
        core.Share(prepared)
    assert caught.value.field == "format"


# ---- tss-lib's JSON ----

PLAIN_NUMBERS = ("NTildei", "H1i", "H2i", "Alpha", "Beta", "P", "Q", "Xi", "ShareID")
ARRAYS = ("Ks", "NTildej", "H1j", "H2j", "BigXj", "PaillierPKs")


@pytest.mark.parametrize("name", [*PLAIN_NUMBERS, *ARRAYS, "PaillierSK", "ECDSAPub"])
def test_a_member_that_is_missing_or_of_another_kind(name: str) -> None:
    values: tuple[object, ...] = (None, "x", [], {}, -1, 1.5, True, [[]])
    for value in values:
        bent = save()
        bent[name] = value
        assert refused_import(json.dumps(bent).encode()) == name
    bent = save()
    del bent[name]
    assert refused_import(json.dumps(bent).encode()) == name


def add(name: str, value: int) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        data[name] += value

    return bend


def add_in(name: str, place: int | str, value: int) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        data[name][place] += value

    return bend


def put(name: str, value: object) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        data[name] = value

    return bend


def point(k: int) -> dict[str, Any]:
    return {"Curve": "secp256k1", "Coords": list(mul(k, G) or ())}


def move_point(name: str, x: int, y: int) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        coordinates = (data[name][0] if name == "BigXj" else data[name])["Coords"]
        coordinates[0] += x
        coordinates[1] += y

    return bend


LARGEST_PRIME = (1 << 2048) - 1942289  # of 2048 bits: every number of ours is a unit of it


def copied(theirs: str, ours: str) -> Bend:
    """Party 0 has a number of party 1, whose save this is; all else about it is in order."""

    def bend(data: dict[str, Any]) -> None:
        numbers = {
            "N": data["PaillierPKs"][1]["N"],
            "NT": data["NTildej"][1],
            "h1": data["H1j"][1],
            "h2": data["H2j"][1],
        }
        other = {"N": data["PaillierPKs"][0]["N"], "NT": LARGEST_PRIME, "h1": 4, "h2": 9} | {theirs: numbers[ours]}
        data["PaillierPKs"][0]["N"] = other["N"]
        data["NTildej"][0], data["H1j"][0], data["H2j"][0] = other["NT"], other["h1"], other["h2"]

    return bend


BENT: dict[str, tuple[Bend, str]] = {
    "N is not P Q": (add_in("PaillierSK", "N", 2), "PaillierSK"),
    "P is not prime": (add_in("PaillierSK", "P", 2), "PaillierSK"),
    "Q is even": (add_in("PaillierSK", "Q", 1), "PaillierSK"),
    "phi": (add_in("PaillierSK", "PhiN", 1), "PaillierSK"),
    "lambda": (add_in("PaillierSK", "LambdaN", 1), "PaillierSK"),
    "P larger than 1024 bits": (add_in("PaillierSK", "P", 1 << 1024), "PaillierSK"),
    "N~": (add("NTildei", 2), "NTildei"),
    "h1": (add("H1i", 1), "H1i"),
    "h1 is one": (put("H1i", 1), "H1i"),
    "h2": (add("H2i", 1), "H2i"),
    "alpha": (add("Alpha", 1), "Beta"),
    "beta": (add("Beta", 1), "Beta"),
    "germain P": (add("P", 2), "Beta"),
    "germain Q": (add("Q", 2), "Beta"),
    "germain P of 1024 bits": (add("P", 1 << 1023), "P"),
    "germain P too short": (put("P", 3), "NTildei"),
    "germain Q of 1024 bits": (add("Q", 1 << 1023), "Q"),
    "x": (add("Xi", 1), "Xi"),
    "x longer than a modulus": (add("Xi", 1 << 2048), "Xi"),
    "share id of nobody": (put("ShareID", 9), "ShareID"),
    "share id of another": (put("ShareID", 1), "NTildej"),
    "keys not ascending": (put("Ks", [2, 1, 3]), "NTildej"),
    "keys not small": (put("Ks", [1, 2, 1 << 70]), "Ks"),
    "key too large for a seat": (put("Ks", [1, 2, 65536]), "Ks"),
    "key zero": (put("Ks", [0, 2, 3]), "Ks"),
    "one key": (put("Ks", [2]), "Ks"),
    "too many keys": (put("Ks", list(range(1, 40))), "Ks"),
    "two equal keys": (put("Ks", [1, 2, 2]), "Ks"),
    "another's N~ even": (add_in("NTildej", 0, 1), "PaillierPKs, NTildej, H1j or H2j"),
    "another's h1 one": (lambda data: data["H1j"].__setitem__(0, 1), "PaillierPKs, NTildej, H1j or H2j"),
    "own entry of N~": (add_in("NTildej", 1, 2), "NTildej"),
    "own entry of h2": (add_in("H2j", 1, 1), "NTildej"),
    **{
        f"another's {theirs} is our {ours}": (copied(theirs, ours), "PaillierPKs, NTildej, H1j or H2j: used twice")
        for pair in (("N", "NT"), ("h1", "h2"))
        for theirs in pair
        for ours in pair
    },
    "X off the curve": (move_point("BigXj", 0, 1), "BigXj"),
    "X not canonical": (move_point("BigXj", P, 0), "BigXj"),
    "X of another share": (lambda data: data["BigXj"].__setitem__(2, point(77)), "BigXj"),
    "own X": (lambda data: data["BigXj"].__setitem__(1, point(77)), "Xi"),
    "curve of X": (lambda data: data["BigXj"][0].__setitem__("Curve", "ed25519"), "BigXj"),
    "three coordinates": (lambda data: data["BigXj"][0]["Coords"].append(1), "BigXj"),
    "public key of another": (put("ECDSAPub", point(77)), "ECDSAPub"),
    "public key off the curve": (move_point("ECDSAPub", 1, 0), "ECDSAPub"),
    "own ring is another's": (
        lambda data: data.update(
            {name: save(1)[name] for name in ("NTildei", "H1i", "H2i", "Alpha", "Beta", "P", "Q")}
        ),
        "NTildej",
    ),
    "Paillier primes exchanged for the ring's": (
        lambda data: data["PaillierSK"].update(P=2 * data["P"] + 1, Q=2 * data["Q"] + 1),
        "H2i",
    ),
}


@pytest.mark.parametrize("case", BENT)
def test_save_data_that_contradicts_itself(case: str) -> None:
    bend, field = BENT[case]
    bent = save()
    bend(bent)
    assert refused_import(json.dumps(bent).encode()) == field


@pytest.mark.parametrize(
    ("text", "threshold", "field"),
    [
        (b"", 2, "JSON"),
        (b"{", 2, "JSON"),
        (b"{}x", 2, "JSON"),
        (b'{"a"}', 2, "JSON"),
        (b'{"a":}', 2, "JSON"),
        (b'{"a":1,}', 2, "JSON"),
        (b'{"a', 2, "JSON"),
        (b'{"a\\', 2, "JSON"),
        (b"[" * 9 + b"]" * 9, 2, "JSON"),
        (b"[" * 100000, 2, "JSON"),
        (b"{}", 2, "PaillierSK"),
        (b"[]", 2, "PaillierSK"),
        (b"null", 2, "PaillierSK"),
    ],
)
def test_text_that_is_no_save_data(text: bytes, threshold: int, field: str) -> None:
    if text:
        assert refused_import(text, threshold) == field


def test_a_threshold_that_the_public_shares_do_not_have() -> None:
    text = json.dumps(save(2, 3, 5)).encode()
    assert refused_import(text, 2) == "BigXj"
    assert refused_import(text, 4) == "threshold"
    assert refused_import(text, 5) == "threshold"
    assert refused_import(text, 6) == "threshold"
    assert refused_import(json.dumps(save(1, 2, 2)).encode(), 3) == "threshold"


def test_what_go_accepts_is_accepted() -> None:
    original = save()
    spaced = json.dumps(original, indent=2)
    extra = '{"Unknown": {"a": [1, "\\"}", null]},' + spaced[1:]
    unreduced = json.dumps(original | {"Xi": original["Xi"] + 3 * Q})
    unnamed = copy.deepcopy(original)
    for each in [*unnamed["BigXj"], unnamed["ECDSAPub"]]:
        del each["Curve"]
    with import_text(json.dumps(original).encode()) as expected:
        for text in (spaced, extra, unreduced, json.dumps(unnamed)):
            with import_text(text.encode()) as data:
                assert seeded.reveal(data) == seeded.reveal(expected)


def test_a_member_given_twice_is_refused() -> None:
    text = json.dumps(save())
    assert refused_import(('{"Xi": 5,' + text[1:]).encode()) == "Xi"
