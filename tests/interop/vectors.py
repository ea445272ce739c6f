"""The recorded vectors of tests/vectors/gg18; their README tells where each comes from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "vectors" / "gg18"

Json = dict[str, Any]


def compact(value: object) -> str:
    """JSON without spaces, as Go writes it."""
    return json.dumps(value, separators=(",", ":"))


def load(name: str) -> Json:
    """Read NAME.json or NAME.json.gz."""
    packed = FOLDER / f"{name}.json.gz"
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / f"{name}.json").read_bytes()
    value: Json = json.loads(text)
    return value


def pre_parameters() -> list[Json]:
    """Five sets of tss-lib's pre-parameters (LocalPreParams)."""
    sets: list[Json] = load("preparams")["sets"]
    return sets


def saves(profile: str, t: int, n: int) -> list[Json]:
    """What tss-lib's parties 1..n stored (LocalPartySaveData) after a t-of-n keygen among themselves."""
    stored: list[Json] = load(f"{profile}-saves")[f"{t}-of-{n}"]
    return stored
