"""The public side of tss-lib's GG18 in plain Python: hashes, message encoding and every proof's verification.

Written from the protocol's description alone, for tests: it shares nothing with the C core, so that what both accept is
what the protocol says. Nothing here is constant time and nothing here touches a secret. Names are the protocol's:
N a Paillier modulus, NT, h1, h2 a party's ring, ctx the session id followed by a party's index.
"""

from __future__ import annotations

import hashlib
from itertools import chain
from math import gcd, isqrt
from typing import TYPE_CHECKING, Final, NamedTuple

from gmpy2 import powmod

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

P: Final = 2**256 - 2**32 - 977
Q: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
B: Final = 7
DLN_ITERATIONS: Final = 128
MOD_ITERATIONS: Final = 80
PAILLIER_ITERATIONS: Final = 13


class Point(NamedTuple):
    """An affine point of secp256k1; infinity is None."""

    x: int
    y: int


G: Final = Point(
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)


def power(base: int, exponent: int, modulus: int) -> int:
    """What pow says, by GMP: with Python's own, most of the time of the core's tests would go into it."""
    return int(powmod(base, exponent, modulus))


def point(x: int, y: int) -> Point:
    """Check that x, y is on the curve."""
    assert x < P
    assert y < P
    assert (y * y - x**3 - B) % P == 0
    return Point(x, y)


def add(a: Point | None, b: Point | None) -> Point | None:
    """Group law."""
    if a is None or b is None:
        return a or b
    if a.x == b.x and (a.y + b.y) % P == 0:
        return None
    slope = 3 * a.x * a.x * power(2 * a.y, -1, P) if a == b else (b.y - a.y) * power(b.x - a.x, -1, P)
    x = (slope * slope - a.x - b.x) % P
    return Point(x, (slope * (a.x - x) - a.y) % P)


def mul(k: int, a: Point | None) -> Point | None:
    """K times a."""
    k %= Q
    out = None
    while k:
        if k & 1:
            out = add(out, a)
        a, k = add(a, a), k >> 1
    return out


def total(points: Iterable[Point | None]) -> Point:
    """Sum of points that is not infinity."""
    out = None
    for each in points:
        out = add(out, each)
    assert out is not None
    return out


def lagrange(own: int, keys: Sequence[int]) -> int:
    """Coefficient of a party's value in the interpolation at zero."""
    out = 1
    for key in keys:
        if key != own:
            out = out * key * pow(key - own, -1, Q) % Q
    return out


# ---- Hashing ----


def i2b(n: int) -> bytes:
    """Big-endian, minimal; zero is empty."""
    return n.to_bytes((n.bit_length() + 7) // 8)


def _frame(parts: Sequence[bytes]) -> bytes:
    framed = (part + b"$" + len(part).to_bytes(8, "little") for part in parts)
    return len(parts).to_bytes(8, "little") + b"".join(framed)


def _sha512_256(data: bytes) -> bytes:
    return hashlib.new("sha512_256", data).digest()


def hash_bytes(*parts: bytes) -> bytes:
    """HB of byte strings."""
    return _sha512_256(_frame(parts))


def hash_ints(*numbers: int) -> int:
    """HI of integers."""
    return int.from_bytes(hash_bytes(*map(i2b, numbers)))


def hash_tagged(tag: bytes, *numbers: int) -> int:
    """HT of integers, under a tag."""
    return int.from_bytes(_sha512_256(hash_bytes(tag) * 2 + _frame([*map(i2b, numbers)])))


def context(ssid: bytes, index: int) -> bytes:
    """The session id bound to a party; index 0 adds nothing."""
    return ssid + i2b(index)


def keygen_ssid(keys: Sequence[int], nonce: int) -> bytes:
    """The session id of a keygen; nonce is 0 where there is none."""
    return i2b(hash_ints(P, Q, *G, *keys, 1, nonce))


class Committee(NamedTuple):
    """What all signers know of each other, in the order of their keys."""

    keys: list[int]
    public_shares: list[Point]
    n: list[int]
    nt: list[int]
    h1: list[int]
    h2: list[int]


def signing_ssid(c: Committee, nonce: int) -> bytes:
    """The session id of a signing; nonce is 0 in v2, and in v3 the message where none is set."""
    shares = chain.from_iterable(c.public_shares)
    return i2b(hash_ints(P, Q, B, *G, *c.keys, *shares, *c.nt, *c.h1, *c.h2, 1, nonce))


def opens(commitment: int, opening: Sequence[int]) -> list[int]:
    """Check an opening and return what was committed to."""
    assert hash_ints(*opening) == commitment
    return list(opening[1:])


# ---- Wire ----


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> dict[int, list[bytes]]:
    """Decode a protobuf message that holds only byte strings."""
    out: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        assert key & 7 == 2
        length, at = _varint(data, at)
        assert at + length <= len(data)
        out.setdefault(key >> 3, []).append(data[at : at + length])
        at += length
    return out


def unwrap(wire: bytes) -> tuple[str, dict[int, list[int]]]:
    """Decode wire bytes into the message's name and, by field number, its integers."""
    outer = fields(wire)
    prefix, name = outer[1][0].decode().rsplit(".", 1)
    assert prefix in {
        "type.googleapis.com/binance.tsslib.ecdsa.keygen",
        "type.googleapis.com/binance.tsslib.ecdsa.signing",
    }
    inner = fields(outer[2][0])
    assert all(not part.startswith(b"\0") for parts in inner.values() for part in parts)
    return name, {number: [int.from_bytes(part) for part in parts] for number, parts in inner.items()}


# ---- Proofs ----


def verify_dln(tag: bytes | None, h1: int, h2: int, n: int, proof: Sequence[int]) -> None:
    """h2 is a power of h1 modulo n; tag is None in v2 and the session id in v3."""
    assert proof[0] == proof[DLN_ITERATIONS + 1] == DLN_ITERATIONS
    alphas, ts = proof[1 : DLN_ITERATIONS + 1], proof[DLN_ITERATIONS + 2 :]
    assert len(ts) == DLN_ITERATIONS
    hashed = (h1, h2, n, *alphas)
    challenge = hash_ints(*hashed) if tag is None else hash_tagged(tag, *hashed)
    for k, (alpha, t) in enumerate(zip(alphas, ts, strict=True)):
        assert 1 < alpha < n
        assert power(h1, t, n) == alpha * power(h2, challenge >> k & 1, n) % n


def jacobi(a: int, n: int) -> int:
    """Jacobi symbol, n odd and positive."""
    a, out = a % n, 1
    while a:
        while a % 2 == 0:
            a //= 2
            out = -out if n % 8 in {3, 5} else out
        a, n = n, a
        out = -out if a % 4 == n % 4 == 3 else out
        a %= n
    return out if n == 1 else 0


def verify_mod(ctx: bytes, n: int, proof: Sequence[int]) -> None:
    """N is a Paillier-Blum modulus."""
    w, xs = proof[0], proof[1 : MOD_ITERATIONS + 1]
    a, b, zs = proof[MOD_ITERATIONS + 1], proof[MOD_ITERATIONS + 2], proof[MOD_ITERATIONS + 3 :]
    assert len(zs) == MOD_ITERATIONS
    assert jacobi(w, n) == -1
    assert a.bit_length() == b.bit_length() == MOD_ITERATIONS + 1
    ys: list[int] = []
    for k, (x, z) in enumerate(zip(xs, zs, strict=True)):
        ys.append(hash_tagged(ctx, w, n, *ys) % n)
        assert power(z, n, n) == ys[k]
        assert power(x, 4, n) == pow(-1, a >> k & 1) * pow(w, b >> k & 1) * ys[k] % n


def verify_fac(ctx: bytes, n0: int, nc: int, s: int, t: int, proof: Sequence[int]) -> None:
    """Both factors of n0 are near its root; nc, s, t are the verifier's ring."""
    p, q, a, b, tt, sigma, z1, z2, w1, w2, v = proof
    bound = Q**3 * isqrt(n0)
    assert z1 < bound
    assert z2 < bound
    e = hash_tagged(ctx, n0, nc, s, t, p, q, a, b, tt, sigma) % Q
    assert power(s, z1, nc) * power(t, w1, nc) % nc == a * power(p, e, nc) % nc
    assert power(s, z2, nc) * power(t, w2, nc) % nc == b * power(q, e, nc) % nc
    r = power(s, n0, nc) * power(t, sigma, nc) % nc
    assert power(q, z1, nc) * power(t, v, nc) % nc == tt * power(r, e, nc) % nc


def paillier_challenges(k: int, n: int, y: Point) -> list[int]:
    """The numbers of which n-th roots are shown."""
    blocks = -(-n.bit_length() // 256)
    out: list[int] = []
    rejected = 0
    while len(out) < PAILLIER_ITERATIONS:
        digits = (str(len(out)).encode(), str(rejected).encode())
        tail = (i2b(k), i2b(y.x), i2b(y.y), i2b(n))
        parts = (hash_bytes(digits[0], str(j).encode(), digits[1], *tail) for j in range(blocks))
        candidate = int.from_bytes(b"".join(parts))
        if 1 <= candidate < n and gcd(candidate, n) == 1:
            out.append(candidate)
        else:
            rejected += 1
    return out


def verify_paillier(k: int, n: int, y: Point, proof: Sequence[int]) -> None:
    """N is coprime to the order of its unit group."""
    assert [power(pi, n, n) for pi in proof] == paillier_challenges(k, n, y)


class Ring(NamedTuple):
    """A party's ring and the version of the transcript: v3 hashes the ring, v2 does not."""

    nt: int
    h1: int
    h2: int
    hashed: bool

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the ring adds to a hash."""
        return (self.nt, self.h1, self.h2) if self.hashed else ()

    def commit(self, a: int, b: int) -> int:
        """h1^a h2^b."""
        return power(self.h1, a, self.nt) * power(self.h2, b, self.nt) % self.nt


def verify_range(ctx: bytes | None, n: int, ring: Ring, c: int, proof: Sequence[int]) -> None:
    """C holds a small number under Alice's n; ctx is the receiver's, and None in v2."""
    z, u, w, s, s1, s2 = proof
    assert Q <= s1 <= Q**3
    hashed = (n, n + 1, *ring.prefix, c, z, u, w)
    e = (hash_ints(*hashed) if ctx is None else hash_tagged(ctx, *hashed)) % Q
    n2 = n * n
    assert u == (1 + n * s1) * power(s, n, n2) * power(c, -e, n2) % n2
    assert w == ring.commit(s1, s2) * power(z, -e, ring.nt) % ring.nt


def verify_bob(ctx: bytes, n: int, ring: Ring, c1: int, c2: int, proof: Sequence[int], x: Point | None) -> None:
    """C2 is c1 times a small number plus another, under Alice's n and in her ring; x for the proof with check."""
    z, zprm, t, v, w, s, s1, s2, t1, t2 = proof[:10]
    assert Q <= s1 <= Q**3
    assert Q <= t1 <= Q**7
    u = None if x is None else point(*proof[10:])
    hashed = (n, n + 1, *ring.prefix, *(x or ()), c1, c2, *(u or ()), z, zprm, t, v, w)
    e = hash_tagged(ctx, *hashed) % Q
    n2, nt = n * n, ring.nt
    if x is not None:
        assert mul(s1, G) == add(mul(e, x), u)
    assert ring.commit(s1, s2) == power(z, e, nt) * zprm % nt
    assert ring.commit(t1, t2) == power(t, e, nt) * w % nt
    assert power(c1, s1, n2) * power(s, n, n2) * (1 + n * t1) % n2 == power(c2, e, n2) * v % n2


def verify_schnorr(ctx: bytes, x: Point, alpha: Point, t: int) -> None:
    """The sender knows the logarithm of x."""
    c = hash_tagged(ctx, *x, *G, *alpha) % Q
    assert mul(t, G) == add(alpha, mul(c, x))


def verify_v_schnorr(ctx: bytes, v: Point, r: Point, alpha: Point, t: int, u: int) -> None:
    """The sender knows s and l with v = s r + l G."""
    c = hash_tagged(ctx, *v, *r, *G, *alpha) % Q
    assert add(mul(t, r), mul(u, G)) == add(alpha, mul(c, v))


def recover(digest: int, rs: bytes, recovery_id: int) -> Point:
    """The public key that a signature with low s and its recovery id belong to."""
    r, s = int.from_bytes(rs[:32]), int.from_bytes(rs[32:])
    assert 0 < s <= Q // 2
    x = r + (recovery_id >> 1) * Q
    y = power(x**3 + B, (P + 1) // 4, P)
    nonce_point = point(x, y if y & 1 == recovery_id & 1 else P - y)
    found = mul(pow(r, -1, Q), add(mul(s, nonce_point), mul(-digest, G)))
    assert found is not None
    return found
