"""What somebody finds who has the store, or the store and the PIN."""

import dataclasses
import gc
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hsm import CKR, DataAltered, HsmError, NotConforming, SealedBlob, SealHeader, Token
from hsm._direct import ffi, lib
from hsm.keys import CKA, CKM_AES_KEY_GEN, Objects, Table, Template, kek_table, opened_key_table
from hsm.profiles import PROFILES
from hsm.sealing import Bench
from tests.hsm.soft import HEADER, Memory

SIZE = 40_000


@pytest.fixture
def blob(token: Token) -> SealedBlob:
    return token.seal(Memory(bytes(SIZE)), HEADER)


def refused(token: Token, blob: SealedBlob, header: SealHeader = HEADER) -> None:
    memory = Memory(b"\xff" * len(blob))
    with pytest.raises(DataAltered):
        token.open(blob, header, lambda _: memory)
    assert memory.content in (bytes(len(blob)), b"\xff" * len(blob))  # nothing of the share


# ---- With the store ----


@pytest.mark.parametrize(
    "change",
    [
        {"party_id": "alice-phone"},
        {"share_id": "7f8c1f6e-6d1c-4b8e-8a3e-0d6f2b1c9a56"},
        {"session_id": "0b8d3c2a-5f1e-4c7d-9b6a-1e2f3a4b5c6e"},
        {"share_type": "recovery"},
        {"public_key": b"\x03" + HEADER.public_key[1:]},
        {"threshold_t": 3},
        {"threshold_n": 4},
        {"committee_digest": bytes(32)},
        {"generation": 1},
        {"domain": "state"},
        {"domain": "pre-params"},
        # The boundary between two fields, moved.
        {"party_id": "alice-server7", "share_id": HEADER.share_id[1:]},
    ],
    ids=str,
)
def test_a_relabelled_row_is_refused(token: Token, blob: SealedBlob, change: dict[str, Any]) -> None:
    refused(token, blob, dataclasses.replace(HEADER, **change))


def flip(raw: bytes, bit: int) -> bytes:
    return (int.from_bytes(raw) ^ 1 << bit).to_bytes(len(raw))


def with_chunk(blob: SealedBlob, index: int, **change: Any) -> SealedBlob:  # noqa: ANN401  (any field)
    chunks = list(blob.chunks)
    chunks[index] = dataclasses.replace(chunks[index], **change)
    return dataclasses.replace(blob, chunks=tuple(chunks))


@pytest.mark.parametrize("index", range(4))
def test_a_changed_chunk_is_refused(token: Token, blob: SealedBlob, index: int) -> None:
    chunk = blob.chunks[index]
    for bit in (0, 7, 8 * len(chunk.data) - 1):
        refused(token, with_chunk(blob, index, data=flip(chunk.data, bit)))
    for bit in range(0, 128, 13):
        refused(token, with_chunk(blob, index, auth_tag=flip(chunk.auth_tag, bit)))
    for bit in range(3, 96, 11):
        refused(token, with_chunk(blob, index, iv=flip(chunk.iv, bit)))


def test_a_changed_wrapped_key_is_refused(token: Token, blob: SealedBlob) -> None:
    for bit in range(0, 320, 7):
        refused(token, dataclasses.replace(blob, wrapped_key=flip(blob.wrapped_key, bit)))


def test_reordered_and_dropped_and_repeated_chunks_are_refused(token: Token, blob: SealedBlob) -> None:
    *body, last = blob.chunks
    for order in itertools.permutations(body):
        if order != tuple(body):
            refused(token, dataclasses.replace(blob, chunks=(*order, last)))
    for kept in (blob.chunks[:-1], blob.chunks[:1], blob.chunks[1:], (last,), (*body[:2], last)):
        refused(token, dataclasses.replace(blob, chunks=kept))
    with pytest.raises(DataAltered, match="same iv"):
        dataclasses.replace(blob, chunks=(body[0], body[0], *body[1:], last))


def test_a_cut_last_chunk_is_refused(token: Token, blob: SealedBlob) -> None:
    last = blob.chunks[-1]
    refused(token, with_chunk(blob, 3, data=last.data[:-1]))
    refused(token, with_chunk(blob, 3, data=last.data + b"\0"))


def test_parts_of_two_rows_do_not_combine(token: Token, blob: SealedBlob) -> None:
    other = token.seal(Memory(bytes(SIZE)), HEADER)
    refused(token, dataclasses.replace(blob, wrapped_key=other.wrapped_key))
    refused(token, dataclasses.replace(blob, chunks=other.chunks))
    refused(token, dataclasses.replace(blob, chunks=(blob.chunks[0], *other.chunks[1:])))


def test_an_older_generation_does_not_open_as_the_newer(token: Token, blob: SealedBlob) -> None:
    newer = dataclasses.replace(HEADER, generation=1)
    token.seal(Memory(bytes(SIZE)), newer)
    refused(token, blob, newer)


def test_a_row_moved_to_another_kek_version_is_refused(token: Token, blob: SealedBlob) -> None:
    token.new_kek_version()
    refused(token, dataclasses.replace(blob, kek_version=2))
    with pytest.raises(DataAltered, match="KEK version 7 is not on the token"):
        token.open(dataclasses.replace(blob, kek_version=7), HEADER, Memory)
    token.probe()


def test_a_recovery_key_put_on_or_off_is_refused(token: Token, blob: SealedBlob) -> None:
    refused(token, dataclasses.replace(blob, recovery_wrapped=bytes(385), recovery_fingerprint=bytes(32)))


def test_no_two_chunks_share_key_and_iv(token: Token) -> None:
    used = set()
    for _ in range(100):
        blob = token.seal(Memory(bytes(SIZE)), HEADER)
        used |= {(blob.wrapped_key, chunk.iv) for chunk in blob.chunks}
    assert len(used) == 100 * 4
    assert len({key for key, _ in used}) == 100


def test_equal_plaintexts_look_unlike(token: Token) -> None:
    first, second = (token.seal(Memory(bytes(SIZE)), HEADER) for _ in range(2))
    assert not {c.data for c in first.chunks} & {c.data for c in second.chunks}
    assert len({c.data for c in first.chunks}) == 4


# ---- With the store and the PIN: every call the token offers ----


Attack = Callable[[Callable[[Bench, Objects], object]], int]


@pytest.fixture
def attack(token: Token) -> Attack:
    """Run something in a logged-in session; the CKR code it ended with."""

    def run(what: Callable[[Bench, Objects], object]) -> int:
        with token._connected().bench() as (bench, _):
            try:
                what(bench, Objects(bench.module, bench.session))
            except HsmError as error:
                return -1 if error.rv is None else error.rv
        return CKR.OK

    return run


def unwrap(bench: Bench, objects: Objects, blob: SealedBlob) -> int:
    return unwrapped_as(bench, objects, blob, opened_key_table(PROFILES["softhsm"]))


def unwrapped_as(bench: Bench, objects: Objects, blob: SealedBlob, table: Table) -> int:
    return objects.unwrap(0x2109, bench.keys.keks[blob.kek_version], blob.wrapped_key, table)


@pytest.mark.parametrize(
    "change",
    [
        {CKA.SENSITIVE: False},
        {CKA.EXTRACTABLE: True},
        {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True},
        {CKA.TOKEN: True, CKA.EXTRACTABLE: True},
        {CKA.PRIVATE: False, CKA.SENSITIVE: False},
    ],
    ids=str,
)
def test_a_share_key_is_not_unwrapped_in_clear(attack: Attack, blob: SealedBlob, change: dict[CKA, Any]) -> None:
    table = {**opened_key_table(PROFILES["softhsm"]), **change}
    assert attack(lambda bench, objects: unwrapped_as(bench, objects, blob, table)) == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize("left_out", [CKA.SENSITIVE, CKA.EXTRACTABLE])
def test_a_share_key_is_not_unwrapped_without_saying_how(attack: Attack, blob: SealedBlob, left_out: CKA) -> None:
    table = {k: v for k, v in opened_key_table(PROFILES["softhsm"]).items() if k is not left_out}
    assert attack(lambda bench, objects: unwrapped_as(bench, objects, blob, table)) == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize("key_type", [0x10, 0x13, 0x15, 0x1F])
def test_whatever_it_is_unwrapped_as_it_is_not_readable(attack: Attack, blob: SealedBlob, key_type: int) -> None:
    """As a generic secret, as DES, as AES."""

    def read(bench: Bench, objects: Objects) -> int:
        table = {**opened_key_table(PROFILES["softhsm"]), CKA.KEY_TYPE: key_type}
        key = unwrapped_as(bench, objects, blob, table)
        assert not objects.readable(key)
        assert objects.read(key, CKA.VALUE) is None
        return key

    attack(read)


def test_an_opened_share_key_cannot_be_changed_copied_or_wrapped(attack: Attack, blob: SealedBlob) -> None:
    open_it: Table = {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True}

    def change(bench: Bench, objects: Objects) -> None:
        objects.change(unwrap(bench, objects, blob), open_it)

    def copy(bench: Bench, objects: Objects) -> int:
        return objects.copy(unwrap(bench, objects, blob), open_it)

    def wrap(bench: Bench, objects: Objects) -> int:
        return len(objects.wrap(0x2109, bench.keys.keks[1], unwrap(bench, objects, blob)))

    assert attack(change) in (CKR.ATTRIBUTE_READ_ONLY, CKR.TEMPLATE_INCONSISTENT)
    assert attack(copy) in (CKR.ATTRIBUTE_READ_ONLY, CKR.TEMPLATE_INCONSISTENT)
    assert attack(wrap) == CKR.KEY_UNEXTRACTABLE


def test_the_kek_stays_what_it_is(attack: Attack) -> None:
    def kek(bench: Bench) -> int:
        return bench.keys.keks[1]

    def change_kek(bench: Bench, objects: Objects, table: Table) -> None:
        objects.change(kek(bench), table)

    def copy_kek(bench: Bench, objects: Objects, table: Table) -> None:
        objects.copy(kek(bench), table)

    looser: tuple[Table, ...] = (
        {CKA.SENSITIVE: False},
        {CKA.EXTRACTABLE: True},
        {CKA.DECRYPT: True},
        {CKA.UNWRAP_TEMPLATE: {}},
        {CKA.ALLOWED_MECHANISMS: (0x2109, 0x1087)},
    )
    for table in looser:
        assert attack(partial(change_kek, table=table)) > CKR.OK
        assert attack(partial(copy_kek, table=table)) > CKR.OK
    assert attack(lambda bench, objects: objects.copy(kek(bench), {CKA.TOKEN: False})) > CKR.OK
    assert attack(lambda bench, objects: len(objects.wrap(0x2109, kek(bench), kek(bench)))) == CKR.KEY_UNEXTRACTABLE
    attack(lambda bench, objects: _not_readable(objects, kek(bench)))


def _not_readable(objects: Objects, key: int) -> int:
    assert not objects.readable(key)
    return key


def test_the_kek_does_nothing_but_key_wrap(attack: Attack, blob: SealedBlob) -> None:
    """Decrypting the wrapped key as data would give it away; so would another unwrapping mechanism."""
    for mechanism in (0x1081, 0x1082, 0x1087):  # ECB, CBC, GCM
        assert attack(partial(encrypt_by_kek, mechanism=mechanism)) > CKR.OK

    def by_padded_wrap(bench: Bench, objects: Objects) -> int:
        table = opened_key_table(PROFILES["softhsm"])
        return objects.unwrap(0x210A, bench.keys.keks[1], blob.wrapped_key, table)

    assert attack(by_padded_wrap) == CKR.MECHANISM_INVALID


def encrypt_by_kek(bench: Bench, _: Objects, mechanism: int) -> int:
    """Encrypting stands for decrypting: the KEK can do neither."""
    suite = ffi.new("hsm_suite *", bench.suite.struct[0])
    suite.gcm_mechanism = mechanism
    chunk = ffi.new("hsm_chunk[1]")
    data = ffi.new("uint8_t[40]")
    chunk[0].data, chunk[0].data_len, chunk[0].iv_len = data, 40, 12
    call = ffi.new("const char **")
    rv = int(lib.hsm_encrypt(bench.module, bench.session, suite, bench.keys.keks[1], data, 40, b"", 0, chunk, 1, call))
    if rv:
        raise HsmError("refused", rv)
    return rv


def test_signing_keys_do_not_come_out(attack: Attack) -> None:
    def read(bench: Bench, objects: Objects) -> int:
        for key in (bench.keys.identity, bench.keys.backup):
            assert key is not None
            assert not objects.readable(key.handle)
        return 0

    def wrap(bench: Bench, objects: Objects) -> int:
        assert bench.keys.identity is not None
        return len(objects.wrap(0x210A, bench.keys.keks[1], bench.keys.identity.handle))

    def change(bench: Bench, objects: Objects) -> None:
        assert bench.keys.identity is not None
        objects.change(bench.keys.identity.handle, {CKA.EXTRACTABLE: True})

    assert attack(read) == CKR.OK
    assert attack(wrap) > CKR.OK
    assert attack(change) > CKR.OK


def test_a_planted_second_kek_is_noticed(token: Token, attack: Attack) -> None:
    """Ambiguity is an error: a key of the attacker's with our label and version is never used."""
    weak = {**kek_table(PROFILES["softhsm"], "tssd-kek", 1), CKA.EXTRACTABLE: True}
    assert attack(lambda _, objects: objects.generate(CKM_AES_KEY_GEN, weak)) == CKR.OK
    with pytest.raises(NotConforming, match="two keys are KEK version 1"):
        token.reconnect()


@pytest.mark.parametrize(
    "change",
    [
        {CKA.EXTRACTABLE: True},
        {CKA.UNWRAP_TEMPLATE: {CKA.SENSITIVE: True}},
        {CKA.DECRYPT: True},
        {CKA.COPYABLE: True},
        {CKA.MODIFIABLE: True},
        {CKA.ALLOWED_MECHANISMS: (0x2109, 0x1087)},
    ],
    ids=str,
)
def test_a_planted_newer_kek_that_is_weaker_is_noticed(token: Token, attack: Attack, change: dict[CKA, Any]) -> None:
    weak = {**kek_table(PROFILES["softhsm"], "tssd-kek", 2), **change}
    assert attack(lambda _, objects: objects.generate(CKM_AES_KEY_GEN, weak)) == CKR.OK
    with pytest.raises(NotConforming, match="KEK version 2 is not as we make it"):
        token.reconnect()


def test_a_kek_of_a_known_value_is_noticed(token: Token, attack: Attack) -> None:
    """One that the attacker brought along, hidden like ours."""
    known = {**kek_table(PROFILES["softhsm"], "tssd-kek", 2), CKA.VALUE: bytes(32)}
    del known[CKA.VALUE_LEN]
    assert attack(lambda _, objects: objects.create(known)) == CKR.OK
    with pytest.raises(NotConforming, match="CKA_LOCAL"):
        token.reconnect()


def test_a_planted_public_key_is_noticed(token: Token, attack: Attack) -> None:
    """The identity's public key swapped for another: what the private one signs does not verify."""

    def swap(_: Bench, objects: Objects) -> int:
        (ours,) = objects.find(2, "tssd-identity")
        (other,) = objects.find(2, "tssd-backup")
        point = objects.read(other, CKA.EC_POINT)
        params = objects.read(other, CKA.EC_PARAMS)
        assert point
        assert params
        objects.destroy(ours)
        return objects.create(
            {
                CKA.CLASS: 2,
                CKA.KEY_TYPE: 3,
                CKA.TOKEN: True,
                CKA.PRIVATE: False,
                CKA.LABEL: "tssd-identity",
                CKA.EC_PARAMS: params,
                CKA.EC_POINT: point,
            }
        )

    assert attack(swap) == CKR.OK
    with pytest.raises(NotConforming, match="do not belong together"):
        token.reconnect()


def test_templates_survive_their_pointers() -> None:
    """The packed form keeps what it points to alive, nested ones too."""
    template = Template({CKA.UNWRAP_TEMPLATE: {CKA.SENSITIVE: True}, CKA.LABEL: "x" * 100})
    gc.collect()
    assert template.count == 2
    assert len(template._keep) == 3
