"""A throw-away SoftHSM token, and what tests seal on it."""

import dataclasses
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsm import Pin, PinLatch, SealHeader, Token, TokenSettings, open_token
from hsm._direct import ffi
from hsm.keys import CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, Objects

ROOT = Path(__file__).parents[2]
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


class Memory:
    """What stands for the core's locked memory: a buffer that stays where it is."""

    def __init__(self, content: int | bytes) -> None:
        self._length = content if isinstance(content, int) else len(content)
        self._buffer = ffi.new("uint8_t[]", self._length)
        if not isinstance(content, int):
            ffi.memmove(self._buffer, content, self._length)

    @property
    def address(self) -> int:
        return int(ffi.cast("uintptr_t", self._buffer))

    def __len__(self) -> int:
        return self._length

    @property
    def content(self) -> bytes:
        return bytes(ffi.buffer(self._buffer, self._length))


@dataclass
class SoftToken:
    """One token in a directory of its own."""

    directory: Path
    label: str = "tssd"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.directory / "softhsm2.conf"

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    def settings(self, **changes: Any) -> TokenSettings:  # noqa: ANN401  (whatever the settings take)
        plain = TokenSettings(module_path=SOFTHSM, token_label=self.label)
        return dataclasses.replace(plain, **self.options, **changes)

    def pin(self) -> Pin:
        return Pin.from_file(self.pin_file)

    def open(self, latch: PinLatch | None = None, **changes: Any) -> Token:  # noqa: ANN401  (likewise)
        return open_token(self.settings(**changes), self.pin(), latch)


def make_token(directory: Path, label: str = "tssd") -> SoftToken:
    subprocess.run([ROOT / "softhsm/init-token.sh", directory, label], check=True)
    return SoftToken(directory, label)


def copy_token(token: SoftToken, directory: Path) -> SoftToken:
    """The same token, serial number and all, in another directory."""
    shutil.copytree(token.directory, directory)
    conf = directory / "softhsm2.conf"
    conf.write_text(conf.read_text().replace(str(token.directory), str(directory)))
    return SoftToken(directory, token.label)


def lose_identity(token: Token) -> None:
    """Let the identity key be gone, as on a token that was given the KEK alone."""
    with token._connected().bench() as (bench, _):
        objects = Objects(bench.module, bench.session)
        for kind in (CKO_PUBLIC_KEY, CKO_PRIVATE_KEY):
            for handle in objects.find(kind, TokenSettings.identity_label):
                objects.destroy(handle)


HEADER = SealHeader(
    domain="share",
    party_id="alice-server",
    share_id="7f8c1f6e-6d1c-4b8e-8a3e-0d6f2b1c9a55",
    session_id="0b8d3c2a-5f1e-4c7d-9b6a-1e2f3a4b5c6d",
    share_type="wallet",
    public_key=b"\x02" + bytes(range(32)),
    threshold_t=2,
    threshold_n=3,
    committee_digest=bytes(range(32, 64)),
    generation=0,
)
