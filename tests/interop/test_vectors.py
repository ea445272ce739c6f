"""The recorded Go ceremonies hold what the protocol's description says, proof by proof, in plain Python."""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.interop import gg18, vectors
from tests.interop.gg18 import Committee, G, Point, Ring, context, lagrange, mul, opens, point, total, unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]
Inbox = dict[str, dict[tuple[int, int | None], dict[int, list[int]]]]

PROFILES: Final = ("gg18-v2", "gg18-v3")
KEYGENS: Final = ("gg18-v2-keygen-2-of-2", "gg18-v2-keygen-2-of-3", "gg18-v3-keygen-2-of-2", "gg18-v3-keygen-2-of-3")
SIGNINGS: Final = (
    "gg18-v2-signing-2-of-3-by-1-3",
    "gg18-v2-signing-2-of-3-by-1-2-3",
    "gg18-v2-signing-3-of-5-by-2-3-5",
    "gg18-v3-signing-2-of-3-by-1-3",
    "gg18-v3-signing-2-of-3-by-1-2-3",
    "gg18-v3-signing-3-of-5-by-2-3-5",
    "gg18-v3-signing-2-of-2-nonce",
)


def inbox(told: Json) -> Inbox:
    """Messages by name, then by sender and receiver."""
    out: Inbox = defaultdict(dict)
    for message in told["messages"]:
        name, content = unwrap(base64.b64decode(message["bytes"]))
        assert name == message["type"]
        assert message["broadcast"] == (message["to"] is None)
        slot = (message["from"], message["to"])
        assert slot not in out[name]
        out[name][slot] = content
    return out


def committee(save: Json, keys: Sequence[int]) -> Committee:
    places = [save["Ks"].index(key) for key in keys]
    return Committee(
        keys=list(keys),
        public_shares=[point(*save["BigXj"][place]["Coords"]) for place in places],
        n=[save["PaillierPKs"][place]["N"] for place in places],
        nt=[save["NTildej"][place] for place in places],
        h1=[save["H1j"][place] for place in places],
        h2=[save["H2j"][place] for place in places],
    )


def public_key(save: Json) -> Point:
    return point(*save["ECDSAPub"]["Coords"])


def pairs(flat: Sequence[int]) -> list[Point]:
    return [point(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True)]


@pytest.mark.parametrize("profile", PROFILES)
def test_hashes_are_the_librarys(profile: str) -> None:
    told = vectors.load(f"{profile}-hash")
    for case in told["bytes"]:
        assert gg18.hash_bytes(*map(bytes.fromhex, case["in"])).hex() == case["out"]
    for case in told["integers"]:
        assert f"{gg18.hash_ints(*(int(n, 16) for n in case['in'])):x}" == case["out"]
    for case in told["tagged"]:
        numbers = [int(n, 16) for n in case["in"]]
        assert f"{gg18.hash_tagged(bytes.fromhex(case['tag']), *numbers):x}" == case["out"]
    key, n, y = told["paillier"]["k"], told["paillier"]["n"], [int(c, 16) for c in told["paillier"]["y"]]
    assert gg18.paillier_challenges(int(key, 16), int(n, 16), point(*y)) == [int(x, 16) for x in told["paillier"]["x"]]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("t", "n"), [(2, 2), (2, 3), (3, 5)])
def test_stored_keys_are_consistent(profile: str, t: int, n: int) -> None:
    saves = vectors.saves(profile, t, n)
    keys = list(range(1, n + 1))
    y = public_key(saves[0])
    common = ("Ks", "NTildej", "H1j", "H2j", "BigXj", "PaillierPKs", "ECDSAPub")
    for key, save in zip(keys, saves, strict=True):
        assert {name: save[name] for name in common} == {name: saves[0][name] for name in common}
        assert save["Ks"] == keys
        assert save["ShareID"] == key
        assert mul(save["Xi"], G) == point(*save["BigXj"][key - 1]["Coords"])
        assert save["PaillierSK"]["P"] * save["PaillierSK"]["Q"] == save["PaillierPKs"][key - 1]["N"]
    for first in range(n - t + 1):
        signers = keys[first : first + t]
        shares = [mul(lagrange(key, signers), point(*saves[0]["BigXj"][key - 1]["Coords"])) for key in signers]
        assert total(shares) == y
    few = [mul(lagrange(key, keys[: t - 1]), point(*saves[0]["BigXj"][key - 1]["Coords"])) for key in keys[: t - 1]]
    assert total(few) != y


@pytest.mark.parametrize("name", KEYGENS)
def test_keygen_transcript(name: str) -> None:
    told = vectors.load(name)
    t, keys = told["t"], told["keys"]
    saves = vectors.saves(told["profile"], t, told["n"])
    y, got = public_key(saves[0]), inbox(told)
    ssid = gg18.keygen_ssid(keys, 0)
    assert ssid.hex() == told["ssid"]
    polynomials: list[list[Point]] = []
    for index, key in enumerate(keys):
        r1 = got["KGRound1Message"][key, None]
        (c,), (n,), (nt,), (h1,), (h2,) = (r1[field] for field in range(1, 6))
        if index == 0 and told["n"] == 3:  # slow here, and every party's is made alike
            tag = ssid if told["profile"] == "gg18-v3" else None
            gg18.verify_dln(tag, h1, h2, nt, r1[6])
            gg18.verify_dln(tag, h2, h1, nt, r1[7])
        if index != 0:
            gg18.verify_mod(context(ssid, index), n, got["KGRound2Message2"][key, None][2])
        r2 = got["KGRound2Message2"][key, None]
        polynomials.append(pairs(opens(c, r2[1])))
        assert len(polynomials[-1]) == t
        gg18.verify_paillier(key, n, y, got["KGRound3Message"][key, None][1])
        for receiver in keys:
            if receiver == key:
                continue
            (share,), fac = (got["KGRound2Message1"][key, receiver][field] for field in (1, 2))
            assert mul(share, G) == total(mul(receiver**k, v) for k, v in enumerate(polynomials[-1]))
            ring = got["KGRound1Message"][receiver, None]
            gg18.verify_fac(context(ssid, index), n, ring[3][0], ring[4][0], ring[5][0], fac)
        stored = saves[0]
        assert (n, nt, h1, h2) == (
            stored["PaillierPKs"][index]["N"],
            stored["NTildej"][index],
            stored["H1j"][index],
            stored["H2j"][index],
        )
    sums = [total(column) for column in zip(*polynomials, strict=True)]
    assert sums[0] == y
    for index, key in enumerate(keys):
        assert total(mul(key**k, v) for k, v in enumerate(sums)) == point(*saves[0]["BigXj"][index]["Coords"])


@pytest.mark.parametrize("name", SIGNINGS)
def test_signing_transcript(name: str) -> None:
    told = vectors.load(name)
    keys, m = told["keys"], int(told["digest"], 16)
    save = vectors.saves(told["profile"], told["t"], told["n"])[0]
    y, got, c = public_key(save), inbox(told), committee(save, keys)
    v3 = told["profile"] == "gg18-v3"
    nonce = (told["nonce"] or m) if v3 else 0
    ssid = gg18.signing_ssid(c, nonce)
    assert ssid.hex() == told["ssid"]
    rings = [Ring(nt, h1, h2, v3) for nt, h1, h2 in zip(c.nt, c.h1, c.h2, strict=True)]
    w = [mul(lagrange(key, keys), share) for key, share in zip(keys, c.public_shares, strict=True)]
    assert total(w) == y

    for alice, alice_key in enumerate(keys):
        for bob, bob_key in enumerate(keys):
            if alice == bob:
                continue
            r1 = got["SignRound1Message1"][alice_key, bob_key]
            gg18.verify_range(context(ssid, bob) if v3 else None, c.n[alice], rings[bob], r1[1][0], r1[2])
            r2 = got["SignRound2Message"][bob_key, alice_key]
            ctx = context(ssid, bob)
            gg18.verify_bob(ctx, c.n[alice], rings[alice], r1[1][0], r2[1][0], r2[3], None)
            gg18.verify_bob(ctx, c.n[alice], rings[alice], r1[1][0], r2[2][0], r2[4], w[bob])

    gammas = []
    for index, key in enumerate(keys):
        r4 = got["SignRound4Message"][key, None]
        gammas.append(point(*opens(got["SignRound1Message2"][key, None][1][0], r4[1])))
        gg18.verify_schnorr(context(ssid, index), gammas[-1], point(r4[2][0], r4[3][0]), r4[4][0])
    theta = sum(got["SignRound3Message"][key, None][1][0] for key in keys)
    r = mul(pow(theta, -1, gg18.Q), total(gammas))
    assert r is not None

    us, ts = [], []
    for index, key in enumerate(keys):
        r6 = got["SignRound6Message"][key, None]
        v, a = pairs(opens(got["SignRound5Message"][key, None][1][0], r6[1]))
        gg18.verify_schnorr(context(ssid, index), a, point(r6[2][0], r6[3][0]), r6[4][0])
        gg18.verify_v_schnorr(context(ssid, index), v, r, point(r6[5][0], r6[6][0]), r6[7][0], r6[8][0])
        u, t = pairs(opens(got["SignRound7Message"][key, None][1][0], got["SignRound8Message"][key, None][1]))
        us.append(u)
        ts.append(t)
    assert total(us) == total(ts)
    s = sum(got["SignRound9Message"][key, None][1][0] for key in keys) % gg18.Q
    low, flipped = min(s, gg18.Q - s), s > gg18.Q // 2
    rs = bytes.fromhex(told["signature"])
    assert rs == r.x.to_bytes(32) + low.to_bytes(32)
    assert told["recovery_id"] == (r.y & 1) ^ flipped
    assert gg18.recover(m, rs, told["recovery_id"]) == y
    key = ec.EllipticCurvePublicNumbers(y.x, y.y, ec.SECP256K1()).public_key()
    key.verify(utils.encode_dss_signature(r.x, low), m.to_bytes(32), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
