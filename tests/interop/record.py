"""Records tests/vectors/gg18 from the Go library: `python -m tests.interop.record WHAT...`, from the project's root.

WHAT is one or more of preparams (minutes), hash, ceremonies, and mixed. The folder's README tells what each file holds.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.interop import golang, ours, vectors
from tests.interop.committee import hold
from tests.tss_cffi import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.interop.committee import Seat
    from tests.interop.golang import GoParties

KEYGENS: Final = ((2, 2), (2, 3), (3, 5))
TRANSCRIBED: Final = ((2, 2), (2, 3))
"""Keygens whose messages are kept; of the others only what the parties stored is."""
SIGNINGS: Final = ((2, 3, (1, 3)), (2, 3, (1, 2, 3)), (3, 5, (2, 3, 5)))
"""t, n and the signers' keys."""
NONCE: Final = 0x5E55107 << 228

Json = dict[str, Any]


def write(name: str, value: Json) -> None:
    """Store NAME.json, or NAME.json.gz where that is much smaller; the same value gives the same bytes."""
    text = (vectors.compact(value) + "\n").encode()
    if len(text) < 100_000:
        (vectors.FOLDER / f"{name}.json").write_bytes(text)
    else:
        (vectors.FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(text, mtime=0))


def preparams() -> None:
    """Five sets, of the operating system's randomness."""
    with golang.GoParties("gg18-v2") as parties:
        sets = [parties.ask("preparams")[0]["preparams"] for _ in range(5)]
        write("preparams", {"origin": parties.origin(), "sets": sets})


def hashes() -> None:
    """Hashes, challenges and encodings, on the saved keys in the module's own test folder."""
    for profile, program in golang.PROGRAMS.items():
        module = f"github.com/bnb-chain/tss-lib/{program.removeprefix('gg18')}"
        listed = [golang.go(), "list", "-m", "-f", "{{.Dir}}", module]
        folder = subprocess.run(listed, check=True, capture_output=True, text=True, cwd=golang.SOURCE).stdout.strip()
        saves = []
        for i in range(5):
            with open(f"{folder}/test/_ecdsa_fixtures/keygen_data_{i}.json") as file:  # noqa: PTH123  not our tree
                saves.append(json.load(file))
        with golang.GoParties(profile) as parties:
            (event,) = parties.ask("vectors", {"saves": saves})
            write(f"{profile}-hash", {"origin": parties.origin(), **event["vectors"]})


def transcript(seats: Sequence[Seat]) -> list[Json]:
    """Hold the ceremony and put down what was sent."""
    return [
        {
            "from": sender,
            "to": letter.to,
            "broadcast": letter.broadcast,
            "type": letter.type,
            "bytes": base64.b64encode(letter.payload).decode(),
        }
        for sender, letter in hold(seats)
    ]


def keygen(parties: GoParties, t: int, n: int) -> tuple[Json, list[Json]]:
    """One keygen: its transcript, and what the parties stored."""
    keys = list(range(1, n + 1))
    seeds = [f"{parties.profile} keygen {t}-of-{n} party {key}" for key in keys]
    sets = vectors.pre_parameters()
    seats = [parties.keygen(key, keys, t, made, seed=seed) for key, made, seed in zip(keys, sets, seeds, strict=False)]
    messages = transcript(seats)
    (ssid,) = {seat.ssid for seat in seats}
    assert ssid is not None
    told = {
        "origin": parties.origin(),
        "ceremony": "keygen",
        "profile": parties.profile,
        "t": t,
        "n": n,
        "keys": keys,
        "seeds": seeds,
        "ssid": ssid.hex(),
        "messages": messages,
    }
    return told, [seat.save for seat in seats if seat.save is not None]


def signing(parties: GoParties, t: int, n: int, signers: Sequence[int], nonce: int | None = None) -> Json:
    """One signing with stored keys."""
    name = f"{parties.profile} signing {t}-of-{n} by {'-'.join(map(str, signers))}"
    message = int.from_bytes(name.encode()[-31:])
    saves = vectors.saves(parties.profile, t, n)
    seeds = [f"{name} party {key}" for key in signers]
    seats = [
        parties.signing(key, signers, t, saves[key - 1], message, seed=seed, nonce=nonce)
        for key, seed in zip(signers, seeds, strict=True)
    ]
    messages = transcript(seats)
    ((ssid, signature),) = {(seat.ssid, seat.signature) for seat in seats}
    assert ssid is not None
    assert signature is not None
    return {
        "origin": parties.origin(),
        "ceremony": "signing",
        "profile": parties.profile,
        "t": t,
        "n": n,
        "keys": list(signers),
        "seeds": seeds,
        "nonce": nonce,
        "digest": message.to_bytes(32).hex(),
        "ssid": ssid.hex(),
        "messages": messages,
        "signature": signature.rs.hex(),
        "recovery_id": signature.recovery_id,
    }


def ceremonies() -> None:
    """Keygens and signings among Go parties."""
    for profile in golang.PROGRAMS:
        stored: Json = {}
        with golang.GoParties(profile) as parties:
            for t, n in KEYGENS:
                told, stored[f"{t}-of-{n}"] = keygen(parties, t, n)
                if (t, n) in TRANSCRIBED:
                    write(f"{profile}-keygen-{t}-of-{n}", told)
            write(f"{profile}-saves", stored)
            for t, n, signers in SIGNINGS:
                name = f"{profile}-signing-{t}-of-{n}-by-{'-'.join(map(str, signers))}"
                write(name, signing(parties, t, n, signers))
            if profile == "gg18-v3":
                write(f"{profile}-signing-2-of-2-nonce", signing(parties, 2, 2, (1, 2), NONCE))


def mixed() -> None:
    """Ceremonies in which seat 1 is ours, seeded, and seat 2 is Go's: for a replay without Go."""
    seeded.core.open_arena(seeded.ARENA)
    for profile in golang.PROGRAMS:
        common: Json = {"ceremony": "keygen", "profile": profile, "t": 2, "keys": [1, 2], "own": 1}
        seed = hashlib.sha256(f"{profile} mixed".encode()).digest()
        sets = vectors.pre_parameters()
        with golang.GoParties(profile) as parties:
            common["origin"] = parties.origin()
            common["seed"] = seed.hex()
            peer = parties.keygen(2, (1, 2), 2, sets[1], seed=f"{profile} mixed keygen")
            seeded.randomness(seed)
            mine = ours.keygen(profile, 1, (1, 2), 2, sets[0])
            messages = transcript([mine, peer])
            with mine.share() as share:
                save = seeded.export(share)
                told = {**common, "messages": messages, "save": save, "peer_save": peer.save}
                write(f"{profile}-mixed-keygen", told)
                digest = hashlib.sha256(f"{profile} mixed signing".encode()).digest()
                assert peer.save is not None
                signer = parties.signing(2, (1, 2), 2, peer.save, int.from_bytes(digest))
                seeded.randomness(seed)
                mine = ours.signing(1, (1, 2), share, digest)
            messages = transcript([mine, signer])
            made = mine.signature()
            told = {**common, "ceremony": "signing", "digest": digest.hex(), "messages": messages}
            told |= {"save": save, "signature": made.rs.hex(), "recovery_id": made.recovery_id}
            write(f"{profile}-mixed-signing", told)
            mine.party.close()


def main() -> None:
    """Record what the command line names."""
    for what in sys.argv[1:]:
        {"preparams": preparams, "hash": hashes, "ceremonies": ceremonies, "mixed": mixed}[what]()


if __name__ == "__main__":
    main()
