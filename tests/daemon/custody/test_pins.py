"""The list of pins has one form, and a party id one owner."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from daemon.custody import pins
from daemon.custody.refusal import Refusal
from daemon.custody.state import Peering
from daemon.custody.wire import Pin, SignedPins


class Identity:
    """A node's identity key, in software."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def sign(self, digest: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(digest, ec.ECDSA(Prehashed(SHA256()))))
        return r.to_bytes(32, "big") + min(s, pins.P256_ORDER - s).to_bytes(32, "big")


OWN, BOB, CAROL = Identity(), Identity(), Identity()
PINS = (
    Pin(node="bob", identity=BOB.public, patterns=("bob-*",)),
    Pin(node="carol", identity=CAROL.public, patterns=("*-backup", "carol-server")),
)
BODY = pins.encode_list(7, PINS)


def test_the_list_byte_by_byte() -> None:
    """The format, written out: docs/custody.md."""
    assert pins.encode_list(258, (Pin(node="b", identity=b"\2" * 33, patterns=("b-*", "a-b")),)) == (
        b"\x01\x00\x00\x00\x00\x00\x00\x01\x02\x00\x01\x00\x01b" + b"\2" * 33 + b"\x00\x02\x00\x03a-b\x00\x03b-*"
    )
    assert pins.checkpoint_body(1, b"a" * 32, 2, b"c" * 32) == (
        b"\x01" + bytes(7) + b"\x01" + b"a" * 32 + bytes(7) + b"\x02" + b"c" * 32
    )
    assert pins.successor_body(b"p" * 33, b"s" * 33) == b"\x01" + b"p" * 33 + b"s" * 33


def test_a_list_is_read_as_it_was_written() -> None:
    assert pins.decode_list(BODY) == (7, PINS)
    assert pins.decode_list(pins.encode_list(0, ())) == (0, ())


@given(data=st.data())
def test_another_form_of_a_list_is_refused(data: st.DataObject) -> None:
    changed = bytearray(BODY)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    for body in (bytes(changed), cut, cut + b"\0", BODY + cut):
        with suppress(Refusal):
            number, read = pins.decode_list(body)
            assert pins.encode_list(number, read) == body


@given(body=st.binary(max_size=300))
def test_any_bytes_are_refused_or_a_list(body: bytes) -> None:
    with suppress(Refusal):
        number, read = pins.decode_list(body)
        assert pins.encode_list(number, read) == body


@pytest.mark.parametrize(
    ("pattern", "party_id", "expected"),
    [
        ("bob-server", "bob-server", True),
        ("bob-server", "bob-server2", False),
        ("bob-server", "xbob-server", False),
        ("*", "bob-server", True),
        ("bob-*", "bob-server", True),
        ("bob-*", "bobby-server", False),
        ("*-server", "bob-server", True),
        ("*-server", "bob-server-x", False),
        ("b*b-*r", "bob-server", True),
        ("b.b-server", "bob-server", False),
        ("bob-[a-z]*", "bob-server", False),
        ("bob_*", "bob-server", False),
    ],
)
def test_only_the_star_is_special(pattern: str, party_id: str, *, expected: bool) -> None:
    assert pins.matches(pattern, party_id) is expected


def test_a_party_id_has_exactly_one_owner() -> None:
    assert pins.identity_of(PINS, "bob-server") == BOB.public
    assert pins.identity_of(PINS, "alice-backup") == CAROL.public
    with pytest.raises(Refusal, match="no pinned peer speaks for dave-server"):
        pins.identity_of(PINS, "dave-server")
    with pytest.raises(Refusal, match="several nodes: bob, carol"):
        pins.identity_of(PINS, "bob-backup")


def test_signatures_have_one_form() -> None:
    digest = os.urandom(32)
    signature = OWN.sign(digest)
    r, s = signature[:32], int.from_bytes(signature[32:], "big")
    assert pins.verify(OWN.public, digest, signature)
    assert not pins.verify(BOB.public, digest, signature)
    assert not pins.verify(OWN.public, os.urandom(32), signature)
    for other in (
        r + (pins.P256_ORDER - s).to_bytes(32, "big"),
        r + s.to_bytes(32, "little"),
        signature[:-1],
        signature + b"\0",
        bytes(64),
        bytes(32) + signature[32:],
        r + bytes(32),
        b"\xff" * 64,
    ):
        assert not pins.verify(OWN.public, digest, other)
    assert not pins.verify(b"\2" * 33, digest, signature)
    assert not pins.verify(b"", digest, signature)


@pytest.fixture
def book(tmp_path: Path) -> pins.PinBook:
    return pins.PinBook(tmp_path, Peering)


def test_numbers_grow_by_one(book: pins.PinBook) -> None:
    assert book.newest(OWN.public) is None
    assert book.number() == 0
    first = book.sign(PINS, OWN.public, OWN.sign)
    second = book.sign(PINS[:1], OWN.public, OWN.sign)
    assert (first.number, second.number, book.number()) == (1, 2, 2)
    assert book.newest(OWN.public) == second
    assert book.check(second.signed, OWN.public) == second
    with pytest.raises(Refusal, match="older"):
        book.check(first.signed, OWN.public)


def test_a_second_list_of_one_number_is_refused(book: pins.PinBook) -> None:
    book.sign(PINS, OWN.public, OWN.sign)
    body = pins.encode_list(1, PINS[:1])
    forged = SignedPins(body=body, signature=OWN.sign(pins.tagged("tssd/1/pins", body)))
    with pytest.raises(Refusal, match="two lists"):
        book.check(forged, OWN.public)


def test_what_the_chain_has_seen_counts_too(tmp_path: Path) -> None:
    book = pins.PinBook(tmp_path, lambda: Peering(5))
    with pytest.raises(Refusal, match="list 5 of pins was signed"):
        book.newest(OWN.public)
    body = pins.encode_list(4, PINS)
    (tmp_path / "pins").write_bytes(
        msgspec.msgpack.encode(SignedPins(body=body, signature=OWN.sign(pins.tagged("tssd/1/pins", body))))
    )
    with pytest.raises(Refusal, match="older than 5"):
        book.newest(OWN.public)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda _: b"",
        lambda content: content[:20] + b"\xff\xfe" + content[22:],
        lambda content: os.urandom(len(content)),
    ],
)
def test_a_damaged_file_is_refused(book: pins.PinBook, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    book.sign(PINS, OWN.public, OWN.sign)
    file = tmp_path / "pins"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Refusal):
        book.newest(OWN.public)
    with pytest.raises(Refusal):
        book.sign(PINS, OWN.public, OWN.sign)


# ---- A list that was verified is not verified again, and nothing else is believed for it ----


class Counted:
    """Counts how often a signature is verified."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._verify = pins.verify
        monkeypatch.setattr(pins, "verify", self)

    def __call__(self, identity: bytes, digest: bytes, signature: bytes) -> bool:
        self.count += 1
        return self._verify(identity, digest, signature)


def test_the_same_bytes_are_verified_once(book: pins.PinBook, monkeypatch: pytest.MonkeyPatch) -> None:
    first = book.sign(PINS, OWN.public, OWN.sign)
    counted = Counted(monkeypatch)
    for _ in range(3):
        assert book.newest(OWN.public) == first
        assert book.check(first.signed, OWN.public) == first
        assert book.problem(OWN.public) == ""
    assert counted.count == 1
    second = book.sign(PINS[:1], OWN.public, OWN.sign)
    assert book.newest(OWN.public) == second
    assert book.newest(OWN.public) == second
    assert counted.count == 2


def test_a_verified_list_is_not_believed_of_another_key(book: pins.PinBook) -> None:
    signed = book.sign(PINS, OWN.public, OWN.sign).signed
    assert book.check(signed, OWN.public).pins == PINS
    with pytest.raises(Refusal, match="not signed by our identity key"):
        book.check(signed, BOB.public)
    assert book.check(signed, OWN.public).pins == PINS


def test_a_verified_list_is_still_held_against_the_chain(tmp_path: Path) -> None:
    seen = 0
    book = pins.PinBook(tmp_path, lambda: Peering(seen))
    signed = book.sign(PINS, OWN.public, OWN.sign).signed
    assert book.check(signed, OWN.public).number == 1
    seen = 2
    with pytest.raises(Refusal, match="older than 2"):
        book.check(signed, OWN.public)


def test_a_verified_list_does_not_cover_for_a_file_that_was_changed(book: pins.PinBook, tmp_path: Path) -> None:
    signed = book.sign(PINS, OWN.public, OWN.sign).signed
    assert book.check(signed, OWN.public).number == 1
    file = tmp_path / "pins"
    whole = file.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refusal):
            book.check(signed, OWN.public)
    forged = msgspec.structs.replace(signed, body=pins.encode_list(1, PINS[:1]))
    file.write_bytes(msgspec.msgpack.encode(forged))
    with pytest.raises(Refusal, match="not signed by our identity key"):
        book.check(forged, OWN.public)
    file.unlink()
    with pytest.raises(Refusal, match="stored is not signed"):
        book.check(forged, OWN.public)


def test_what_is_shown_beside_a_verified_list_is_verified(book: pins.PinBook) -> None:
    signed = book.sign(PINS, OWN.public, OWN.sign).signed
    assert book.check(signed, OWN.public).number == 1
    high = signed.signature[:32] + (pins.P256_ORDER - int.from_bytes(signed.signature[32:], "big")).to_bytes(32, "big")
    for changed in (
        msgspec.structs.replace(signed, body=pins.encode_list(2, PINS)),
        msgspec.structs.replace(signed, signature=bytes(64)),
        msgspec.structs.replace(signed, signature=high),
    ):
        with pytest.raises(Refusal, match="stored is not signed"):
            book.check(changed, OWN.public)


NEXT = Identity()
"""Our identity key after OWN."""


@pytest.fixture
def changed(tmp_path: Path) -> pins.PinBook:
    """Two lists, the chain has seen the first; then our identity key has changed."""
    before = pins.PinBook(tmp_path, Peering)
    before.sign(PINS[:1], OWN.public, OWN.sign)
    before.sign(PINS, OWN.public, OWN.sign)
    return pins.PinBook(tmp_path, lambda: Peering(1, (OWN.public, NEXT.public)))


def test_a_list_of_an_earlier_identity_key_is_for_renewing_alone(changed: pins.PinBook) -> None:
    old = changed.newest(OWN.public)
    assert old is not None
    uses: tuple[Callable[[], object], ...] = (
        lambda: changed.newest(NEXT.public),
        lambda: changed.check(old.signed, NEXT.public),
        lambda: changed.sign(PINS, NEXT.public, NEXT.sign),
    )
    for use in uses:
        with pytest.raises(Refusal, match="earlier identity key of ours; `tssctl peers renew`"):
            use()
    assert "tssctl peers renew" in changed.problem(NEXT.public)
    renewed = changed.renew(NEXT.public, NEXT.sign)
    assert (renewed.number, renewed.pins) == (3, PINS)
    assert changed.renew(NEXT.public, NEXT.sign) == renewed == changed.newest(NEXT.public)
    assert changed.problem(NEXT.public) == ""
    assert changed.sign(PINS[:1], NEXT.public, NEXT.sign).number == 4
    # Whoever still has the old key, and tssd, shows no list of his own any more, whatever its number.
    body = pins.encode_list(99, PINS)
    with pytest.raises(Refusal, match="not signed by our identity key; `tssctl peers verify`"):
        changed.check(SignedPins(body=body, signature=OWN.sign(pins.tagged("tssd/1/pins", body))), NEXT.public)


def put(directory: Path, number: int, identity: Identity) -> None:
    body = pins.encode_list(number, PINS)
    signed = SignedPins(body=body, signature=identity.sign(pins.tagged("tssd/1/pins", body)))
    (directory / "pins").write_bytes(msgspec.msgpack.encode(signed))


@pytest.mark.parametrize("what", ["a stranger's", "older", "damaged", "gone"])
def test_what_does_not_verify_is_not_renewed_but_an_empty_list_may_be_begun(tmp_path: Path, what: str) -> None:
    book = pins.PinBook(tmp_path, lambda: Peering(5, (OWN.public, NEXT.public)))
    if what == "a stranger's":
        put(tmp_path, 7, BOB)
    elif what == "older":
        put(tmp_path, 4, OWN)
    elif what == "damaged":
        (tmp_path / "pins").write_bytes(b"\x92")
    with pytest.raises(Refusal) as refused:
        book.renew(NEXT.public, NEXT.sign)
    assert "tssctl peers renew --empty" in refused.value.message
    begun = book.begin_anew(NEXT.public, NEXT.sign)
    assert (begun.number, begun.pins) == (6, ())
    assert book.newest(NEXT.public) == begun
    assert book.sign(PINS, NEXT.public, NEXT.sign).number == 7


def test_an_empty_list_takes_the_number_after_the_newest(changed: pins.PinBook) -> None:
    begun = changed.begin_anew(NEXT.public, NEXT.sign)
    assert (begun.number, begun.pins) == (3, ())


def test_there_is_nothing_to_renew_before_the_first_list(book: pins.PinBook) -> None:
    with pytest.raises(Refusal, match="`tssctl peers add`"):
        book.renew(OWN.public, OWN.sign)


def test_another_tags_signature_is_no_list(book: pins.PinBook) -> None:
    for tag in ("tssd/1/hello", "tssd/1/checkpoint", "tssd/1/confirm"):
        other = SignedPins(body=BODY, signature=OWN.sign(pins.tagged(tag, BODY)))
        with pytest.raises(Refusal, match="not signed"):
            book.check(other, OWN.public)
