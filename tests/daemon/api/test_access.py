from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from daemon.api.access import Access, Peer, Role, peer_of, require
from daemon.errors import NotPermitted, SettingsRefused, Unauthenticated
from daemon.settings import AccessSettings, JwtSettings
from daemon.values import ShareType
from tests.daemon.api.standin import StandIn, served
from tests.daemon.ctl.talking import listening, tssctl

if TYPE_CHECKING:
    from pathlib import Path

TABLE = AccessSettings.model_validate(
    {
        "viewer": ["gid:10"],
        "participant": ["uid:2", "gid:20"],
        "operator": ["uid:3"],
        "share_types": {"gid:20": ["wallet"], "gid:21": ["admin"]},
    }
)
CLAIMS = {"iss": "wallet", "aud": "tssd", "sub": "main-service"}


def test_the_kernel_vouches_for_the_caller() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(trio.socket.from_stdlib_socket(ours))
    assert peer == Peer(os.getuid(), frozenset({os.getgid(), *os.getgroups()}))


@pytest.mark.parametrize(
    ("peer", "role", "types"),
    [
        (Peer(1, frozenset({1})), Role.NOBODY, None),
        (Peer(1, frozenset({1, 10})), Role.VIEWER, None),
        (Peer(10, frozenset({1})), Role.NOBODY, None),  # a gid's number is not a uid
        (Peer(2, frozenset({2})), Role.PARTICIPANT, None),
        (Peer(1, frozenset({1, 20})), Role.PARTICIPANT, {ShareType.WALLET}),
        (Peer(1, frozenset({20, 21})), Role.PARTICIPANT, {ShareType.WALLET, ShareType.ADMIN}),
        (Peer(3, frozenset({10, 20})), Role.OPERATOR, {ShareType.WALLET}),
    ],
)
def test_roles_follow_uid_and_all_groups(peer: Peer, role: Role, types: set[ShareType] | None) -> None:
    standing = Access(TABLE, None).judge(peer, None)
    assert (standing.role, standing.share_types) == (role, types)
    assert standing.name == f"uid:{peer.uid}"


def test_a_role_includes_those_before_it() -> None:
    standing = Access(TABLE, None).judge(Peer(2, frozenset()), None)
    require(standing, Role.VIEWER)
    require(standing, Role.PARTICIPANT)
    with pytest.raises(NotPermitted, match="needs the role operator"):
        require(standing, Role.OPERATOR)


def keys(algorithm: str) -> tuple[bytes, bytes]:
    """What the issuer signs with, and what the key file holds."""
    if algorithm == "HS256":
        return (b"s" * 32, b"s" * 32 + b"\n")
    private = rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        pem(private.public_key()),
    )


def pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def settings(algorithm: str, key_file: Path, **more: object) -> JwtSettings:
    return JwtSettings.model_validate({"algorithm": algorithm, "key_file": key_file, "issuer": "wallet", **more})


def token(key: bytes, algorithm: str, **changes: Any) -> str:  # noqa: ANN401  claims are any JSON
    claims = {**CLAIMS, "exp": time.time() + 60, **changes}
    wanted = {name: value for name, value in claims.items() if value is not None}
    return f"Bearer {jwt.encode(wanted, key, algorithm=algorithm)}"


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_a_token_is_required_on_top(tmp_path: Path, algorithm: str) -> None:
    private, public = keys(algorithm)
    key_file = tmp_path / "key"
    key_file.write_bytes(public)
    access = Access(TABLE, settings(algorithm, key_file))
    caller = Peer(3, frozenset())
    standing = access.judge(caller, token(private, algorithm))
    assert (standing.role, standing.name) == (Role.OPERATOR, "uid:3 sub:main-service")
    refused = [
        None,
        "Basic dXNlcjpwYXNz",
        "Bearer ",
        "Bearer x.y.z",
        "Bearer " + "x" * 20000,
        token(private, algorithm, exp=time.time() - 60),
        token(private, algorithm, exp=None),
        token(private, algorithm, iss="other"),
        token(private, algorithm, iss=None),
        token(private, algorithm, aud="other"),
        token(private, algorithm, nbf=time.time() + 3600),
        token(keys(algorithm)[0] if algorithm != "HS256" else b"o" * 32, algorithm),
        f"Bearer {jwt.encode({**CLAIMS, 'exp': time.time() + 60}, '', algorithm='none')}",
    ]
    for authorization in refused:
        with pytest.raises(Unauthenticated):
            access.judge(caller, authorization)


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    _, public = keys("RS256")
    key_file = tmp_path / "key"
    key_file.write_bytes(public)
    header_and_claims = token(b"k" * 32, "HS256")  # signed under another algorithm than the configured one
    with pytest.raises(Unauthenticated):
        Access(TABLE, settings("RS256", key_file)).judge(Peer(3, frozenset()), header_and_claims)


@pytest.mark.parametrize(
    ("claim", "role"),
    [
        ("viewer", Role.VIEWER),
        ("participant", Role.PARTICIPANT),
        ("operator", Role.PARTICIPANT),  # never more than the uid has
        ("emperor", Role.NOBODY),
        (None, Role.NOBODY),
        (3, Role.NOBODY),
    ],
)
def test_a_token_can_only_take_away(tmp_path: Path, claim: object, role: Role) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"s" * 32)
    access = Access(TABLE, settings("HS256", key_file, role_claim="role"))
    assert access.judge(Peer(2, frozenset()), token(b"s" * 32, "HS256", role=claim)).role is role


def test_keys_that_cannot_be_are_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"short")
    for algorithm in ("HS256", "RS256", "ES256"):
        with pytest.raises(SettingsRefused, match=algorithm):
            Access(TABLE, settings(algorithm, key_file))
    key_file.write_bytes(keys("ES256")[1])
    with pytest.raises(SettingsRefused, match="RS256"):
        Access(TABLE, settings("RS256", key_file))
    key_file.write_bytes(pem(ec.generate_private_key(ec.SECP384R1()).public_key()))
    with pytest.raises(SettingsRefused, match="EC P-256"):
        Access(TABLE, settings("ES256", key_file))
    key_file.write_bytes(pem(rsa.generate_private_key(65537, 1024).public_key()))  # noqa: S505  it is refused
    with pytest.raises(SettingsRefused, match="2048 bits"):
        Access(TABLE, settings("RS256", key_file))
    with pytest.raises(SettingsRefused, match="No such file"):
        Access(TABLE, settings("HS256", tmp_path / "none"))


async def test_over_the_socket_a_token_is_asked_for(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"s" * 32)
    async with served(StandIn(jwt=settings("HS256", key_file, role_claim="role")), tmp_path) as client:
        assert (await client.get("/mpc-party/health")).status_code == 200
        without = await client.get("/mpc-party/shares")
        assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
        assert without.json()["type"] == "urn:tssd:problem:unauthenticated"
        seeing = {"Authorization": token(b"s" * 32, "HS256", role="viewer")}
        assert (await client.get("/mpc-party/shares", headers=seeing)).status_code == 200
        assert (await client.post("/mpc-party/audit/verify", headers=seeing)).status_code == 403
        doing = {"Authorization": token(b"s" * 32, "HS256", role="operator")}
        assert (await client.post("/mpc-party/audit/verify", headers=doing)).status_code == 200


def test_tssctl_brings_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file, token_file = tmp_path / "key", tmp_path / "token"
    key_file.write_bytes(b"s" * 32)
    token_file.write_text(token(b"s" * 32, "HS256").removeprefix("Bearer ") + "\n")
    with listening(StandIn(jwt=settings("HS256", key_file)), tmp_path) as path:
        assert tssctl(capsys, "--socket", str(path), "shares", "list").code == 77
        assert tssctl(capsys, "--socket", str(path), "--token-file", str(token_file), "shares", "list").code == 0
        nowhere = tssctl(capsys, "--socket", str(path), "--token-file", str(tmp_path / "none"), "shares", "list")
    assert nowhere.code == 1
    assert nowhere.err == f"tssctl: {tmp_path / 'none'}: No such file or directory\n  -> see --token-file\n"
