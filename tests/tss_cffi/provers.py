"""GG18's provers in plain Python, for a malicious party: every choice can be made for it, every element shifted.

They keep to the equations a verifier checks: a choice out of range is refused by the range check and nothing else.
`shift` adds to an element by its place: to a commitment before it is hashed, as if it had been transmitted so.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from math import isqrt, prod
from typing import TYPE_CHECKING, Final

from tests.interop.gg18 import (
    DLN_ITERATIONS,
    MOD_ITERATIONS,
    G,
    Point,
    Q,
    Ring,
    add,
    hash_ints,
    hash_tagged,
    i2b,
    jacobi,
    mul,
    paillier_challenges,
    power,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DICE: Final = random.Random(0)  # malice need not be unpredictable

Shift = dict[int, int]


@functools.cache
def _powers(base: int, order: int, n: int) -> tuple[list[int], list[int]]:
    """Exponents and powers for one dln proof; the same ones do for all."""
    exponents = [_DICE.randrange(order) for _ in range(DLN_ITERATIONS)]
    return exponents, [power(base, each, n) for each in exponents]


def _chosen(choices: Mapping[str, int], bounds: Mapping[str, int]) -> dict[str, int]:
    return {name: _DICE.randrange(1, bound) for name, bound in bounds.items()} | dict(choices)


def _shifted(elements: Sequence[int], shift: Shift, first: int = 0) -> list[int]:
    return [element + shift.get(place, 0) for place, element in enumerate(elements, start=first)]


def _fit(elements: Sequence[int], moduli: Sequence[int]) -> bool:
    """A shifted element that got longer than its modulus is refused for that alone: then another one is drawn."""
    return all(each.bit_length() <= m.bit_length() for each, m in zip(elements, moduli, strict=False))


def _crt(residues: Sequence[int], primes: Sequence[int]) -> int:
    n = prod(primes)
    return sum(residue * (n // p) * pow(n // p, -1, p) for residue, p in zip(residues, primes, strict=True)) % n


def recut(numbers: Sequence[int]) -> list[int]:
    """Other numbers that read the same where "$" parts them and no length is written."""
    parts = [i2b(number) for number in numbers]
    k, at = next(
        (k, at)
        for k, part in enumerate(parts[:-1])
        for at in range(1, len(part) - 1)
        if part[at] == ord("$") and part[at + 1]
    )
    parts[k], parts[k + 1] = parts[k][:at], parts[k][at + 1 :] + b"$" + parts[k + 1]
    assert b"$".join(parts) == b"$".join(map(i2b, numbers))
    return [int.from_bytes(part) for part in parts]


def dln(
    tag: bytes | None,
    h: tuple[int, int],
    n: int,
    *,
    x: int,
    order: int,
    shift: Shift | None = None,
    exponents: Mapping[int, int] | None = None,
    hashed_as: Callable[[Sequence[int]], Sequence[int]] = list,
) -> list[int]:
    """h[1] = h[0]^x modulo n; order is that of h[0]. exponents: chosen ones, by iteration."""
    h1, h2 = h
    shift = shift or {}
    a, powers = (list(each) for each in _powers(h1, order, n))
    for k, exponent in (exponents or {}).items():
        a[k], powers[k] = exponent, power(h1, exponent, n)
    alpha = _shifted(powers, shift, 1)
    hashed = (h1, h2, n, *hashed_as(alpha))
    c = hash_ints(*hashed) if tag is None else hash_tagged(tag, *hashed)
    t = [(each + (c >> k & 1) * x) % order for k, each in enumerate(a)]
    return [
        DLN_ITERATIONS + shift.get(0, 0),
        *alpha,
        DLN_ITERATIONS + shift.get(DLN_ITERATIONS + 1, 0),
        *_shifted(t, shift, DLN_ITERATIONS + 2),
    ]


def _fourth_root(y: int, p: int) -> int | None:
    """Modulo a prime p = 3 mod 4 or p = 5 mod 8: the root that is a square itself, if there is one."""
    if p % 4 == 3:  # every square is a fourth power
        return power(y, ((p + 1) // 4) ** 2, p) if jacobi(y, p) != -1 else None
    return power(y, pow(4, -1, (p - 1) // 4), p) if power(y, (p - 1) // 4, p) == 1 else None


def _lifted_root(y: int, p: int, exponent: int) -> int | None:
    """A fourth root modulo p or its square."""
    root = _fourth_root(y % p, p)
    if root is None or exponent == 1:
        return root
    return (root - (root**4 - y) * pow(4 * root**3, -1, p * p)) % (p * p)


def mod(ctx: bytes, *primes: int, w: int | None = None, shift: Shift | None = None) -> list[int]:
    """N, of two primes = 3 mod 4, is a Paillier-Blum modulus. The best that can be said where its primes are others.

    With w a multiple of the first prime: the forgery that Jacobi symbol != 1 let through.
    """
    shift = dict(shift or {})
    return _shifted(_mod(ctx, primes, w, shift.pop(0, 0)), shift)


@functools.cache
def _mod(ctx: bytes, primes: tuple[int, ...], w: int | None, w_shift: int) -> list[int]:
    n, factors = prod(primes), Counter(primes)
    powers = [p**k for p, k in factors.items()]
    phi = prod(q - q // p for q, p in zip(powers, factors, strict=True))
    if w is None:
        w = next(each for each in iter(lambda: _DICE.randrange(1, n), 0) if jacobi(each, n) == -1)
    w += w_shift
    xs, ys = list[int](), list[int]()
    a = b = 1 << MOD_ITERATIONS
    for k in range(MOD_ITERATIONS):
        y = hash_tagged(ctx, w, n, *ys) % n
        ys.append(y)
        for a_k, b_k in ((0, 0), (1, 0), (0, 1), (1, 1)):
            square = pow(-1, a_k) * pow(w, b_k) * y % n
            roots = [_lifted_root(square, p, exponent) for p, exponent in factors.items()]
            residues = [root for root in roots if root is not None]
            if len(residues) == len(roots) and (w % primes[0] or b_k):
                xs.append(_crt(residues, powers))
                a, b = a | a_k << k, b | b_k << k
                break
        else:
            xs.append(2)
    try:
        nth = pow(n, -1, phi)
    except ValueError:  # N shares a factor with phi: next to nothing has an N-th root
        zs = ys
    else:
        zs = [_crt([power(y, nth, q) for q in powers], powers) for y in ys]
    return [w, *xs, a, b, *zs]


def mod_of_prime(ctx: bytes, p: int) -> list[int]:
    """A mod proof over a prime p = 3 mod 4, which satisfies every equation."""
    w = next(each for each in range(2, p) if jacobi(each, p) == -1)
    ys = list[int]()
    xs, a = [], 1 << MOD_ITERATIONS
    for k in range(MOD_ITERATIONS):
        y = hash_tagged(ctx, w, p, *ys) % p
        ys.append(y)
        a |= (jacobi(y, p) == -1) << k
        xs.append(_fourth_root(y if jacobi(y, p) == 1 else -y % p, p) or 0)
    return [w, *xs, a, 1 << MOD_ITERATIONS, *(power(y, pow(p, -1, p - 1), p) for y in ys)]


def fac(
    ctx: bytes, p0: int, q0: int, ring: Ring, choices: Mapping[str, int] | None = None, shift: Shift | None = None
) -> list[int]:
    """N0 = p0 q0 has no small factor, in the verifier's ring."""
    shift, n0, nc = shift or {}, p0 * q0, ring.nt
    root = Q**3 * isqrt(n0)
    bounds = {"alpha": root, "beta": root, "mu": Q * nc, "nu": Q * nc, "x": Q**3 * nc, "y": Q**3 * nc}
    made = _chosen(choices or {}, bounds | {"sigma": Q * n0 * nc, "r": Q**3 * n0 * nc})
    big_q = ring.commit(q0, made["nu"])
    first = _shifted(
        [
            ring.commit(p0, made["mu"]),
            big_q,
            ring.commit(made["alpha"], made["x"]),
            ring.commit(made["beta"], made["y"]),
            power(big_q, made["alpha"], nc) * power(ring.h2, made["r"], nc) % nc,
            made["sigma"],
        ],
        shift,
    )
    e = hash_tagged(ctx, n0, nc, ring.h1, ring.h2, *first) % Q
    responses = [
        e * p0 + made["alpha"],
        e * q0 + made["beta"],
        e * made["mu"] + made["x"],
        e * made["nu"] + made["y"],
        e * (first[5] - made["nu"] * p0) + made["r"],
    ]
    if not _fit(first, [nc] * 5):
        return fac(ctx, p0, q0, ring, choices, shift)
    return [*first, *_shifted(responses, shift, 6)]


def paillier(k: int, p: int, q: int, y: Point, shift: Shift | None = None) -> list[int]:
    """N = p q is coprime to the order of its unit group."""
    n = p * q
    root = pow(n, -1, (p - 1) * (q - 1))
    return _shifted([power(x, root, n) for x in paillier_challenges(k, n, y)], shift or {})


def range_alice(
    ctx: bytes | None, n: int, ring: Ring, choices: Mapping[str, int] | None = None, shift: Shift | None = None
) -> tuple[int, list[int]]:
    """An encryption of m (of m_in_c, if that is chosen) under n, and that m is small, in the receiver's ring."""
    shift, nt = shift or {}, ring.nt
    bounds = {"m": Q, "r": n, "alpha": Q**3, "beta": n, "gamma": Q**3 * nt, "rho": Q * nt}
    made = _chosen(choices or {}, bounds)
    n2 = n * n
    c = (1 + made.get("m_in_c", made["m"]) * n) * power(made["r"], n, n2) % n2
    first = _shifted(
        [
            ring.commit(made["m"], made["rho"]),
            (1 + made["alpha"] * n) * power(made["beta"], n, n2) % n2,
            ring.commit(made["alpha"], made["gamma"]),
        ],
        shift,
    )
    hashed = (n, n + 1, *ring.prefix, c, *first)
    e = (hash_ints(*hashed) if ctx is None else hash_tagged(ctx, *hashed)) % Q
    responses = [
        power(made["r"], e, n) * made["beta"] % n,
        e * made["m"] + made["alpha"],
        e * made["rho"] + made["gamma"],
    ]
    proof = [*first, *_shifted(responses, shift, 3)]
    return (c, proof) if _fit(proof, (nt, n2, nt, n)) else range_alice(ctx, n, ring, choices, shift)


def bob(
    ctx: bytes,
    n: int,
    ring: Ring,
    c1: int,
    *,
    x_point: bool,
    stated: Point | None = None,
    choices: Mapping[str, int] | None = None,
    shift: Shift | None = None,
) -> tuple[int, list[int]]:
    """c2 = c1^x Enc(y) and x, y are small, under Alice's n in her ring; with x_point also that x G is `stated`.

    Choices x_in_c, y_in_c and gamma_in_v put something else into c2 and V than into the commitments.
    """
    shift, nt, n2 = shift or {}, ring.nt, n * n
    bounds = {"x": Q, "y": Q**5, "r": n, "alpha": Q**3, "beta": n, "gamma": Q**7}
    bounds |= {"rho": Q * nt, "sigma": Q * nt, "tau": Q**3 * nt, "rho_prime": Q**3 * nt}
    made = _chosen(choices or {}, bounds)
    x_in_c, y_in_c, gamma_in_v = (made.get(f"{a}_in_{b}", made[a]) for a, b in (("x", "c"), ("y", "c"), ("gamma", "v")))
    c2 = power(c1, x_in_c, n2) * (1 + y_in_c * n) * power(made["r"], n, n2) % n2
    first = _shifted(
        [
            ring.commit(made["x"], made["rho"]),
            ring.commit(made["alpha"], made["rho_prime"]),
            ring.commit(made["y"], made["sigma"]),
            power(c1, made["alpha"], n2) * (1 + gamma_in_v * n) * power(made["beta"], n, n2) % n2,
            ring.commit(made["gamma"], made["tau"]),
        ],
        shift,
    )
    u: tuple[int, ...] = ()
    x: tuple[int, ...] = ()
    if x_point:
        u = tuple(mul(made["alpha"], G) or (1, 1))  # which is no point
        x = tuple(stated or mul(made["x"], G) or ())
    e = hash_tagged(ctx, n, n + 1, *ring.prefix, *x, c1, c2, *u, *first) % Q
    responses = [
        power(made["r"], e, n) * made["beta"] % n,
        e * made["x"] + made["alpha"],
        e * made["rho"] + made["rho_prime"],
        e * made["y"] + made["gamma"],
        e * made["sigma"] + made["tau"],
        *u,
    ]
    proof = [*first, *_shifted(responses, shift, 5)]
    if not _fit(proof, (nt, nt, nt, n2, nt, n)):
        return bob(ctx, n, ring, c1, x_point=x_point, stated=stated, choices=choices, shift=shift)
    return c2, proof


def schnorr(ctx: bytes, x: int, shift: Shift | None = None) -> list[int]:
    """The prover knows x, for X = x G."""
    a = _DICE.randrange(1, Q)
    alpha = mul(a, G) or G
    c = hash_tagged(ctx, *(mul(x, G) or ()), *G, *alpha) % Q
    return _shifted([*alpha, (a + c * x) % Q], shift or {})


def v_schnorr(ctx: bytes, s: int, el: int, r: Point, shift: Shift | None = None) -> list[int]:
    """The prover knows s and l = el, for V = s R + l G."""
    a, b = _DICE.randrange(1, Q), _DICE.randrange(1, Q)
    alpha = add(mul(a, r), mul(b, G)) or G
    v = add(mul(s, r), mul(el, G)) or ()
    c = hash_tagged(ctx, *v, *r, *G, *alpha) % Q
    return _shifted([*alpha, (a + c * s) % Q, (b + c * el) % Q], shift or {})
