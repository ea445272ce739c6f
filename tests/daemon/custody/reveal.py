"""What a share hides, told to a test: ``python reveal.py SOFTHSM2_CONF PIN_FILE < row``, run by itself.

Opens the row as an owner of token and PIN can, and prints the secret numbers in it, by name, in hex.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon.custody import rows
from daemon.custody.wire import ShareRow
from hsm import Pin, TokenSettings, open_token
from tests.daemon.custody.node import SOFTHSM
from tests.tss_cffi import seeded

SECRETS: Final = {
    "share": ("Xi",),
    "Paillier lambda": ("PaillierSK", "LambdaN"),
    "Paillier phi": ("PaillierSK", "PhiN"),
    "Paillier p": ("PaillierSK", "P"),
    "Paillier q": ("PaillierSK", "Q"),
    "ring p": ("P",),
    "ring q": ("Q",),
    "alpha": ("Alpha",),
    "beta": ("Beta",),
}


def main(conf: str, pin: str) -> None:
    os.environ["SOFTHSM2_CONF"] = conf
    row = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ShareRow)
    settings = TokenSettings(module_path=SOFTHSM, token_label="tssd")  # noqa: S106  (a label)
    seeded.core.open_arena(seeded.ARENA)
    with open_token(settings, Pin.from_file(Path(pin)), None) as token:
        memory = token.open(rows.blob_of(row.sealed), rows.share_header(row), seeded.core.SecretBytes)
    assert isinstance(memory, seeded.core.SecretBytes)
    with memory, seeded.core.Share(memory) as share:
        saved = seeded.export(share)
    found = {}
    for name, path in SECRETS.items():
        value: Any = saved
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[name] = f"{int(value):x}"
    print(json.dumps(found))  # noqa: T201  (its output)


if __name__ == "__main__":
    main(*sys.argv[1:])
