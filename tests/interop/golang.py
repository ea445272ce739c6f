"""Unmodified Go parties: builds and drives the programs of tests/interop/go.

One process holds any number of parties of one tss-lib version. Every call returns when the parties have done all the
work that it gave them. `threshold` is everywhere the number of signers needed; tss-lib's own is one less.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from tests.interop import vectors
from tests.interop.committee import Letter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "tests" / "interop" / "go"
BUILT: Final = ROOT / "build" / "interop"
PROGRAMS: Final = {"gg18-v2": "gg18v2", "gg18-v3": "gg18v3"}
OLDEST_GO: Final = (1, 21)  # tss-lib v3 asks for 1.23, which Go fetches by itself from 1.21 on
MESSAGE: Final = 0x5EED << 240  # what benchmarks sign; any number below the group order

Json = dict[str, Any]


class GoMissing(Exception):
    """This machine has no Go, or one too old for the modules; the text says which."""


class GoDied(Exception):
    """The process ended, as it does when tss-lib panics; the text is the end of what it wrote to stderr."""


class GoRefused(Exception):
    """The arguments were not taken."""


class GoFault(NamedTuple):
    """The error of a tss-lib party."""

    culprits: tuple[int, ...]
    """Keys of the parties blamed."""
    round: int
    text: str


class GoSignature(NamedTuple):
    """What a tss-lib signer returns."""

    rs: bytes
    recovery_id: int
    message: bytes
    """The library's copy of the message, padded to 32 bytes."""


def go() -> str:
    """Find the go command; raises GoMissing."""
    found = shutil.which("go")
    if found is None:
        raise GoMissing("Go is not installed")
    # Asked outside the module: a Go older than go.mod demands would try to fetch a newer one.
    told = subprocess.run([found, "env", "GOVERSION"], check=True, capture_output=True, text=True, cwd="/").stdout
    version = re.match(r"go(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GO:
        raise GoMissing(f"Go is older than {OLDEST_GO[0]}.{OLDEST_GO[1]}")
    return found


def build() -> Path:
    """Build both programs, or find them up to date, and return their folder; raises GoMissing.

    The network is needed only while the module cache lacks something; go.sum pins every module.
    """
    command = go()
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = [f"./{program}" for program in PROGRAMS.values()]
        subprocess.run([command, "build", "-o", f"{BUILT}/", *packages], check=True, cwd=SOURCE)
    return BUILT


class GoSeat:
    """One tss-lib party that has started."""

    def __init__(self, parties: GoParties, name: str, key: int, events: Sequence[Json]) -> None:
        self.key: Final = key
        self.save: Json | None = None
        """LocalPartySaveData of a finished keygen; `vectors.compact` gives Go's text of it."""
        self.signature: GoSignature | None = None
        self.fault: GoFault | None = None
        self.ssid: bytes | None = None
        """The session id inside the party, known when it is done."""
        self._parties = parties
        self._name = name
        self._outbox: list[Letter] = []
        self._take(events)

    def receive(self, sender: int, letter: Letter) -> None:
        """Hand over one message. A fault is kept in `fault`, not raised; what comes after it is dropped.

        tss-lib goes on computing with what a failed round left behind, and panics.
        """
        if self.fault is not None:
            return
        payload = base64.b64encode(letter.payload).decode()
        command = {"party": self._name, "from": sender, "broadcast": letter.broadcast, "bytes": payload}
        self._take(self._parties.ask("receive", command))

    def outgoing(self) -> list[Letter]:
        """Take what the party has sent since the last call."""
        sent, self._outbox = self._outbox, []
        return sent

    def leave(self) -> None:
        """Have the process forget the party."""
        self._parties.ask("leave", {"party": self._name})

    def _take(self, events: Sequence[Json]) -> None:
        for event in events:
            match event["event"]:
                case "message":
                    payload = base64.b64decode(event["bytes"])
                    for to in event["to"] or [None]:
                        self._outbox.append(Letter(to, event["broadcast"], event["type"], payload))
                case "save":
                    self.save = event["save"]
                    self.ssid = base64.b64decode(event["ssid"])
                case "signature":
                    told = {name: base64.b64decode(value) for name, value in event["signature"].items()}
                    assert told["signature"] == told["r"] + told["s"], "the library's two forms of a signature differ"
                    self.signature = GoSignature(told["signature"], told["recovery"][0], told["m"])
                    self.ssid = base64.b64decode(event["ssid"])
                case "error":
                    self.fault = GoFault(tuple(event["culprits"]), event["round"], event["text"])
                case other:
                    raise AssertionError(f"unexpected event {other}")


class GoParties:
    """A process that seats parties of one version of tss-lib; a context manager."""

    def __init__(self, profile: str, *, one_processor: bool = False) -> None:
        """Build and start the program for `profile`, "gg18-v2" or "gg18-v3"; raises GoMissing."""
        self.profile: Final = profile
        environment = os.environ | ({"GOMAXPROCS": "1"} if one_processor else {})
        program = build() / PROGRAMS[profile]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        self._seated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def keygen(
        self,
        own: int,
        keys: Sequence[int],
        threshold: int,
        pre_parameters: Mapping[str, Any],
        *,
        seed: str = "",
        nonce: int | None = None,
    ) -> GoSeat:
        """Seat and start a party of a key generation.

        Args:
            own: Key of the party.
            keys: Keys of all parties.
            pre_parameters: LocalPreParams.
            seed: Makes the party's randomness repeatable; "" for the operating system's.
            nonce: Session nonce; v3 only.
        """
        return self._seat("keygen", own, keys, threshold, {"preparams": pre_parameters, "seed": seed, "nonce": nonce})

    def signing(
        self,
        own: int,
        keys: Sequence[int],
        threshold: int,
        save: Mapping[str, Any],
        message: int,
        *,
        seed: str = "",
        nonce: int | None = None,
    ) -> GoSeat:
        """Seat and start a signer.

        Args:
            own: Key of the party.
            keys: Keys of all signers.
            save: The party's LocalPartySaveData.
            message: What is signed, as a number below the group order.
            seed: As for keygen.
            nonce: Session nonce; v3 only.
        """
        more = {"save": save, "message": message, "full_bytes": 32, "seed": seed, "nonce": nonce}
        return self._seat("signing", own, keys, threshold, more)

    def _seat(self, ceremony: str, own: int, keys: Sequence[int], threshold: int, more: Mapping[str, Any]) -> GoSeat:
        self._seated += 1
        name = str(self._seated)
        command = {"party": name, "own": own, "keys": list(keys), "threshold": threshold - 1, **more}
        return GoSeat(self, name, own, self.ask(ceremony, command))

    def origin(self) -> Json:
        """Version and checksum of the module that is linked in, whether it was replaced, and the Go version."""
        return self.ask("origin")[0]

    def ask(self, command: str, fields: Mapping[str, Any] | None = None) -> list[Json]:
        """Send one command and collect the events that answer it; raises GoRefused and GoDied."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        events: list[Json] = []
        try:
            stdin.write(vectors.compact({"cmd": command, **(fields or {})}).encode() + b"\n")
            stdin.flush()
            for line in stdout:
                event = json.loads(line)
                if event["event"] == "ready":
                    return events
                if event["event"] == "refused":
                    stdout.readline()
                    raise GoRefused(event["text"])
                events.append(event)
        except BrokenPipeError:
            pass
        self._process.wait()
        self._stderr.seek(0)
        raise GoDied(self._stderr.read()[:2000].decode(errors="replace"))


def bench(profile: str, what: Literal["keygen", "signing", "preparams"], t: int, n: int, runs: int) -> Json:
    """Measure tss-lib on one processor.

    Args:
        profile: "gg18-v2" or "gg18-v3".
        what: keygen is measured without pre-parameters; of a signing, t parties of an n-party key take part. t and n
            mean nothing for preparams.
        t: Number of signers, 2 <= t <= n.
        n: Number of parties; for signing one of 2-of-2, 2-of-3 and 3-of-5, whose keys tests/vectors/gg18 has.
        runs: Number of ceremonies, at least 1. Each yields a sample for every party, as all do the same work.

    Returns:
        cpu_ms: {median, min, max}, of the process's user and system time while one party works.
        rounds: round number -> median CPU ms spent towards it; not for preparams.
        bytes: median of what one party sends, a broadcast counted for each receiver.
        samples: the CPU ms of each party of each run.
        profile, what, t, n, runs, origin (see GoParties.origin).

    Raises:
        GoMissing: there is no Go.
    """
    wanted: Json = {"what": what, "runs": runs}
    if what == "keygen":
        wanted |= {"keys": list(range(1, n + 1)), "threshold": t - 1, "preparams": vectors.pre_parameters()[:n]}
    elif what == "signing":
        signers = list(range(1, t + 1))
        saves = vectors.saves(profile, t, n)[:t]
        wanted |= {"keys": signers, "threshold": t - 1, "saves": saves, "message": MESSAGE}
    with GoParties(profile, one_processor=True) as parties:
        (event,) = parties.ask("bench", {"bench": wanted})
        origin = parties.origin()
    samples = [sample["cpu_ms"] for sample in event["measured"]]
    rounds = sorted({int(number) for sample in event["measured"] for number in sample["rounds"] or {}})
    return {
        "profile": profile,
        "what": what,
        "t": t,
        "n": n,
        "runs": runs,
        "cpu_ms": {"median": statistics.median(samples), "min": min(samples), "max": max(samples)},
        "rounds": {
            number: statistics.median(sample["rounds"].get(str(number), 0.0) for sample in event["measured"])
            for number in rounds
        },
        "bytes": statistics.median(sample["bytes"] for sample in event["measured"]),
        "samples": samples,
        "origin": origin,
    }
