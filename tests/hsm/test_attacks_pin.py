"""What somebody finds who has the store and the PIN: every call the token offers."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hsm import CKR, HsmError, NotConforming, SealedBlob, Token
from hsm._direct import ffi, lib
from hsm.keys import CKA, CKM_AES_KEY_GEN, Objects, Table, Template, kek_table, opened_key_table
from hsm.profiles import PROFILES
from hsm.sealing import Bench
from tests.hsm.soft import HEADER, Memory


@pytest.fixture
def blob(token: Token) -> SealedBlob:
    return token.seal(Memory(bytes(40_000)), HEADER)


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
    twin = kek_table(PROFILES["softhsm"], "tssd-kek", 1)
    assert attack(lambda _, objects: objects.generate(CKM_AES_KEY_GEN, twin)) == CKR.OK
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
