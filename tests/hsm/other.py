"""A token of one's own, a third provider: named by the environment, with keys of names that nobody else uses.

TSSD_TEST_MODULE (absolute path), TSSD_TEST_TOKEN (label), TSSD_TEST_PIN_FILE (mode 0400), and where they are needed
TSSD_TEST_PROFILE and TSSD_TEST_INIT (for C_Initialize). The keys are removed again.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm import PROFILES, Token
from hsm.doctor import CKM_EC_KEY_PAIR_GEN, CKM_ECDSA
from hsm.keys import CKM_AES_KEY_GEN, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY, Objects
from tests.hsm.soft import SoftToken

NAMED = "TSSD_TEST_MODULE" in os.environ


class OtherToken(SoftToken):
    """The token that the environment names."""

    @property
    def pin_file(self) -> Path:
        return Path(os.environ["TSSD_TEST_PIN_FILE"])


@contextmanager
def other_token() -> Iterator[SoftToken]:
    """Skips, by name, where the token lacks a mechanism that tier A rests on."""
    mark = secrets.token_hex(4)
    profile = PROFILES[os.environ.get("TSSD_TEST_PROFILE", "softhsm")]
    labels = {f"{key}_label": f"tssd-test-{key}-{mark}" for key in ("kek", "identity", "backup")}
    token = OtherToken(
        Path(),
        os.environ["TSSD_TEST_TOKEN"],
        {
            "module_path": Path(os.environ["TSSD_TEST_MODULE"]),
            "profile": profile.name,
            "init_string": os.environ.get("TSSD_TEST_INIT"),
            **labels,
        },
    )
    needed = {
        profile.wrap: "CKM_AES_KEY_WRAP",
        profile.gcm: "CKM_AES_GCM",
        CKM_AES_KEY_GEN: "CKM_AES_KEY_GEN",
        CKM_EC_KEY_PAIR_GEN: "CKM_EC_KEY_PAIR_GEN",
        CKM_ECDSA: "CKM_ECDSA",
    }
    with token.open() as opened:
        offered = opened._connected().facts.mechanisms
    if missing := [f"{name} (0x{number:x})" for number, name in needed.items() if number not in offered]:
        pytest.skip(f"token {token.label} has no {', '.join(missing)}")
    try:
        yield token
    finally:
        with token.open() as opened:
            remove(opened, tuple(labels.values()))


def remove(token: Token, labels: tuple[str, ...]) -> None:
    """Take keys off the token."""
    with token._connected().bench() as (bench, _):
        objects = Objects(bench.module, bench.session)
        for label in labels:
            for kind in (CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY):
                for handle in objects.find(kind, label):
                    objects.destroy(handle)
