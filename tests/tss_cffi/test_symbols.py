"""The extension exports the functions of the public headers, and nothing else."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

import tss_cffi
from tss_cffi import _core

pytestmark = pytest.mark.uninstrumented(reason="of the core that goes into the wheel")

INCLUDE: Final = Path(tss_cffi.__file__).parent / "include"
DECLARED: Final = re.compile(r"^TSS_API\b[^;(]*?\b(tss_\w+)\(", re.MULTILINE)


def test_what_is_exported_is_what_is_declared() -> None:
    assert _core.__file__ is not None
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", _core.__file__]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    exported = {line.split()[0] for line in listing.splitlines()}
    declared = {name for header in INCLUDE.glob("*.h") for name in DECLARED.findall(header.read_text(encoding="utf-8"))}
    assert len(declared) > 20
    assert exported == declared | {"PyInit__core"}
