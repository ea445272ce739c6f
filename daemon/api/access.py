"""Who is calling, as the kernel vouches for it, and what that caller may do.

A caller of the Unix socket is known by its uid, gid and supplementary groups, which the kernel recorded when it
connected. The `[access]` table turns them into a role. Where the configuration has a `[jwt]` table, a bearer token is
required on top: it can take a role away, never give one.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from daemon.errors import NotPermitted, SettingsRefused, Unauthenticated

if TYPE_CHECKING:
    import trio

    from daemon.settings import AccessSettings, JwtSettings, Principal
    from daemon.values import ShareType

SO_PEERGROUPS: Final = 59
"""Linux, asm-generic/socket.h; Python's socket module does not name it."""
GROUPS_MAX: Final = 256
"""What Python's getsockopt has room for. A caller with more supplementary groups has none of them here: fewer rights,
never more."""
HS256_KEY_MIN: Final = 32
RSA_BITS_MIN: Final = 2048
TOKEN_MAX: Final = 16 * 1024


class Role(IntEnum):
    """What a caller may do; each role includes the ones before it."""

    NOBODY = 0
    VIEWER = 1
    PARTICIPANT = 2
    OPERATOR = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection, when it connected."""

    uid: int
    groups: frozenset[int]
    """Primary and supplementary."""


def peer_of(connection: trio.socket.SocketType) -> Peer:
    """Ask the kernel who connected."""
    size = struct.calcsize("3i")
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_MAX * struct.calcsize("I"))
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raw = b""
    return Peer(uid, frozenset({gid, *(group for (group,) in struct.iter_unpack("I", raw))}))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller is to us. share_types: those a participant is narrowed to; None: all."""

    name: str
    role: Role
    share_types: frozenset[ShareType] | None


class Access:
    """The `[access]` and `[jwt]` tables, ready to judge.

    Raises:
        SettingsRefused: The token key cannot be read, or is not one of the algorithm.
    """

    def __init__(self, settings: AccessSettings, tokens: JwtSettings | None) -> None:
        self._settings = settings
        self._tokens = tokens
        self._key = b"" if tokens is None else _read_key(tokens)

    def judge(self, peer: Peer, authorization: str | None) -> Standing:
        """What this caller is to us.

        Args:
            peer: Who connected.
            authorization: The request's Authorization header.

        Raises:
            Unauthenticated: A bearer token is required and missing, or does not hold.
        """
        role = self._role(peer)
        name = f"uid:{peer.uid}"
        if self._tokens is not None:
            claims = self._claims(self._tokens, authorization)
            if self._tokens.role_claim is not None:
                role = min(role, _role_named(claims.get(self._tokens.role_claim)))
            if isinstance(claims.get("sub"), str):
                name = f"{name} sub:{claims['sub']}"
        narrowed = [types for principal, types in self._settings.share_types if _is(peer, principal)]
        return Standing(name, role, frozenset().union(*narrowed) if narrowed else None)

    def _role(self, peer: Peer) -> Role:
        granted = (
            (Role.OPERATOR, self._settings.operator),
            (Role.PARTICIPANT, self._settings.participant),
            (Role.VIEWER, self._settings.viewer),
        )
        return next((role for role, principals in granted if any(_is(peer, one) for one in principals)), Role.NOBODY)

    def _claims(self, tokens: JwtSettings, authorization: str | None) -> dict[str, object]:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("this call needs a bearer token", "send it as 'Authorization: Bearer ...'")
        if len(token) > TOKEN_MAX:
            raise Unauthenticated(f"a bearer token has at most {TOKEN_MAX} characters")
        try:
            claims: dict[str, object] = jwt.decode(
                token.strip(),
                self._key,
                algorithms=[tokens.algorithm],
                issuer=tokens.issuer,
                audience=tokens.audience,
                leeway=tokens.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"the bearer token does not hold: {error}", "ask its issuer for a new one") from None
        return claims


def require(standing: Standing, role: Role) -> None:
    """Let a caller of at least this role pass.

    Raises:
        NotPermitted: Its role is lower.
    """
    if standing.role < role:
        raise NotPermitted(
            f"{standing.name} is {standing.role.name.lower()} here, and this needs the role {role.name.lower()}",
            "the [access] table of config.toml gives roles to users and groups",
        )


def _is(peer: Peer, principal: Principal) -> bool:
    return peer.uid == principal.number if principal.kind == "uid" else principal.number in peer.groups


def _role_named(claim: object) -> Role:
    return Role.__members__.get(claim.upper(), Role.NOBODY) if isinstance(claim, str) else Role.NOBODY


def _read_key(tokens: JwtSettings) -> bytes:
    """The key file's content, checked to be a key of the algorithm."""
    try:
        content = tokens.key_file.read_bytes()
    except OSError as error:
        raise SettingsRefused(f"jwt.key_file: {tokens.key_file}: {error.strerror}") from None
    if tokens.algorithm == "HS256":
        secret = content.strip()
        if len(secret) < HS256_KEY_MIN:
            raise SettingsRefused(f"jwt.key_file: {tokens.key_file}: an HS256 secret has {HS256_KEY_MIN} bytes or more")
        return secret
    try:
        key = load_pem_public_key(content)
    except ValueError:
        key = None
    match key:
        case rsa.RSAPublicKey():
            fits = tokens.algorithm == "RS256" and key.key_size >= RSA_BITS_MIN
        case ec.EllipticCurvePublicKey():
            fits = tokens.algorithm == "ES256" and isinstance(key.curve, ec.SECP256R1)
        case _:
            fits = False
    if not fits:
        wanted = {"RS256": f"RSA of {RSA_BITS_MIN} bits or more", "ES256": "EC P-256"}[tokens.algorithm]
        raise SettingsRefused(
            f"jwt.key_file: {tokens.key_file}: {tokens.algorithm} needs the issuer's public key in PEM, {wanted}"
        )
    return content
