"""What a process that opens shares has in its memory: looked at from outside."""

import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from hsm import SealHeader
from tests.hsm.soft import Memory, SoftToken

CHILD = """
import json, sys
from pathlib import Path
from hsm import Pin, SealedBlob, open_token
from hsm._direct import ffi
from tests.hsm import nss
from tests.hsm.soft import HEADER, Memory, SoftToken
token = (nss.token_in if sys.argv[4] == "nss" else SoftToken)(Path(sys.argv[1]))
blob = SealedBlob.from_json(json.loads(Path(sys.argv[2]).read_text()))
with token.open() as opened:
    for _ in range(20):
        memory = opened.open(blob, HEADER, Memory)
        if sys.argv[3] == "wiped":
            ffi.memmove(memory._buffer, bytes(len(memory)), len(memory))
    print("open", flush=True)
    sys.stdin.read()
"""


def memory_of(process: int) -> bytes:
    """Everything that is mapped readable and writable."""
    found = []
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            start, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]  # its format
            if rights.startswith("rw"):
                memory.seek(int(start, 16))
                found.append(memory.read(int(end, 16) - int(start, 16)))
    return b"\n".join(found)


@pytest.mark.parametrize("state", ["wiped", "held"])
def test_neither_pin_nor_share_stays_behind(
    disposable: SoftToken, header: SealHeader, tmp_path: Path, state: str
) -> None:
    # Printable, so that no chance pattern of a heap is taken for it.
    content = secrets.token_hex(10_000).encode()
    with disposable.open() as token:
        token.create_keys()
        row = tmp_path / "row"
        row.write_text(json.dumps(token.seal(Memory(content), header).to_json()))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, disposable.directory, row, state, disposable.options.get("profile", "softhsm")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdin
    assert child.stdout
    with child:
        assert child.stdout.readline() == b"open\n"
        seen = memory_of(child.pid)
        child.stdin.close()
        assert child.wait() == 0
    assert disposable.pin_file.read_bytes().strip() not in seen
    windows = [content[start : start + 32] for start in range(0, len(content), 256)]
    left = [window for window in windows if window in seen]
    assert left == ([] if state == "wiped" else windows)
