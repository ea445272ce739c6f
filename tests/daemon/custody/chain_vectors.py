"""A chain as a custodian of each format left it: how it is recorded, and what must be in it when it is read.

``python -m tests.daemon.custody.chain_vectors`` writes tests/vectors/chain/v2 anew. A new format gets a folder of its
own, recorded there alone: old state must open for ever.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from daemon.custody.state import RecoveryKey, State, Use

FOLDER: Final = Path(__file__).parents[2] / "vectors/chain"
FORMATS: Final = (1, 2)
"""1: from before KEK versions were remembered."""
SESSION: Final = bytes(range(16))
KEY: Final = b"\2" + bytes(range(32))
AT: Final = 1_700_000_000


def fill(state: State) -> None:
    """One event of every kind."""
    state.admit(b"\3" + bytes(32), (1, 2))
    state.append(RecoveryKey(fingerprint=hashlib.sha256(b"recovery").digest()))
    state.see_pins(7)
    state.spend("prepared-1")
    state.confirm(SESSION, "alice-server")
    state.use(
        Use(
            kind="sign",
            at=AT,
            session=SESSION,
            party_id="alice-server",
            share_id="share-1",
            digest=hashlib.sha256(b"message").digest(),
            plain=False,
        ),
        per_minute=1,
        per_hour=1,
    )
    state.succeed("alice-server", KEY, 3)
    state.revoke("share-2")


def main() -> None:
    """Record."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "state"
        with State(directory) as state:
            fill(state)
            vector: dict[str, Any] = {
                "count": state.count,
                "head": state.head.hex(),
                "chain": (directory / "chain").read_bytes().hex(),
            }
            state._rewrite()
            vector["begun_anew"] = (directory / "chain").read_bytes().hex()
    (FOLDER / f"v{FORMATS[-1]}/every-event.json").write_text(json.dumps(vector, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
