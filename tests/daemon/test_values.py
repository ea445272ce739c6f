from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import InvalidValue
from daemon.values import (
    CURVE_ORDER,
    Committee,
    JoinToken,
    MessageHash,
    PartyId,
    PublicKey,
    Seat,
    SessionId,
    ShareId,
    Signature,
    Threshold,
)

SESSION = "0B1C2D3E-0000-4000-8000-00000000000A"


def key_and_signature(message: bytes) -> tuple[PublicKey, Signature]:
    private = ec.generate_private_key(ec.SECP256K1())
    r, s = utils.decode_dss_signature(private.sign(message, ec.ECDSA(utils.Prehashed(SHA256()))))
    octets = r.to_bytes(32, "big") + min(s, CURVE_ORDER - s).to_bytes(32, "big")
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PublicKey(point), Signature(octets, 0)


def test_a_session_id_keeps_lower_case() -> None:
    assert str(SessionId(SESSION)) == SESSION.lower()
    assert SessionId(SESSION) == SessionId(SESSION.lower())
    assert SessionId.of_octets(SessionId(SESSION).octets) == SessionId(SESSION)


@pytest.mark.parametrize(
    "text", ["", SESSION[:-1], SESSION + "0", SESSION.replace("-", ""), "{" + SESSION + "}", "é" * 36]
)
def test_what_is_no_uuid_is_no_session_id(text: str) -> None:
    with pytest.raises(InvalidValue, match="session id is a UUID"):
        SessionId(text)


def test_a_session_id_is_no_share_id() -> None:
    assert {SessionId(SESSION)}.isdisjoint({ShareId(SESSION)})
    assert ShareId.fresh() != ShareId.fresh()


def test_the_type_of_a_party_follows_the_last_dash() -> None:
    party = PartyId("a-user-with-dashes-server")
    assert (party.user, party.type) == ("a-user-with-dashes", "server")


@pytest.mark.parametrize(
    "text", ["", "user", "-server", "user-", "üser-server", "a b-c", "a-b\n", "x" * 127 + "-y", "a/../-b"]
)
def test_what_is_no_party_id(text: str) -> None:
    with pytest.raises(InvalidValue, match="party id"):
        PartyId(text)


@given(st.integers(), st.integers())
def test_a_threshold_is_from_2_to_n(t: int, n: int) -> None:
    if 2 <= t <= n <= 32:
        assert str(Threshold(t, n)) == f"{t}-of-{n}"
    else:
        with pytest.raises(InvalidValue):
            Threshold(t, n)


def test_both_forms_of_a_public_key_are_one() -> None:
    key, _ = key_and_signature(bytes(32))
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key.octets)
    uncompressed = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex()
    assert PublicKey.parse(uncompressed) == PublicKey.parse(str(key).upper()) == key


@pytest.mark.parametrize(
    "octets", [b"", b"\x02" + bytes(32), b"\x02" + b"\xff" * 32, b"\x05" + bytes(32), b"\0", bytes(65)]
)
def test_what_is_no_point_is_no_public_key(octets: bytes) -> None:
    with pytest.raises(InvalidValue, match="public key"):
        PublicKey(octets)


@given(st.binary(min_size=32, max_size=32))
def test_a_message_hash_with_or_without_0x(octets: bytes) -> None:
    assert MessageHash.parse(octets.hex()) == MessageHash.parse("0x" + octets.hex().upper()) == MessageHash(octets)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0x", "0" * 63, "zz" * 32, "00 " * 32])
def test_what_is_no_message_hash(text: str) -> None:
    with pytest.raises(InvalidValue, match="message hash"):
        MessageHash.parse(text)


@given(st.binary(min_size=32, max_size=32))
def test_a_signature_verifies_for_its_hash_alone(message: bytes) -> None:
    key, signature = key_and_signature(message)
    assert key.verify(MessageHash(message), signature)
    other = bytes([message[0] ^ 1]) + message[1:]
    assert not key.verify(MessageHash(other), signature)


def test_a_high_s_is_no_signature() -> None:
    _, signature = key_and_signature(bytes(32))
    high = signature.octets[:32] + (CURVE_ORDER - signature.s).to_bytes(32, "big")
    for octets in (high, bytes(64), signature.octets[:32] + bytes(32), b"\xff" * 64, b""):
        with pytest.raises(InvalidValue):
            Signature(octets, 0)
    with pytest.raises(InvalidValue):
        Signature(signature.octets, 4)


def test_a_join_token_is_not_printed_or_stored() -> None:
    token = JoinToken("secret.token")
    assert "secret" not in repr(token) + str(token) + f"{token}"
    assert token.reveal() == "secret.token"
    with pytest.raises(TypeError, match="not stored"):
        pickle.dumps(token)


@pytest.mark.parametrize("text", ["", "two\nlines", "ü", "x" * 16385])
def test_what_is_no_join_token(text: str) -> None:
    with pytest.raises(InvalidValue):
        JoinToken(text)


def test_a_committee_is_kept_by_seat() -> None:
    a, b = Seat(2, PartyId("a-x")), Seat(1, PartyId("b-x"))
    committee = Committee((a, b))
    assert committee.seats == (b, a)
    assert committee.seat_of(PartyId("a-x")) == 2
    with pytest.raises(KeyError):
        committee.seat_of(PartyId("c-x"))


@pytest.mark.parametrize(
    "seats",
    [
        (),
        (Seat(1, PartyId("a-x")),),
        (Seat(1, PartyId("a-x")), Seat(1, PartyId("b-x"))),
        (Seat(1, PartyId("a-x")), Seat(2, PartyId("a-x"))),
        tuple(Seat(number, PartyId(f"p{number}-x")) for number in range(1, 34)),
    ],
    ids=["nobody", "alone", "one-seat-twice", "one-party-twice", "too-many"],
)
def test_what_is_no_committee(seats: tuple[Seat, ...]) -> None:
    with pytest.raises(InvalidValue, match="committee"):
        Committee(seats)


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_what_is_no_seat(number: int) -> None:
    with pytest.raises(InvalidValue, match="seat"):
        Seat(number, PartyId("a-x"))
