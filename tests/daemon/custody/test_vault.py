"""The vault's own part, where a real custodian cannot be brought to it: one moment, between two threads."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from daemon.custody import state as memory
from daemon.custody import vault as vault_module
from daemon.custody.policy import read_policy
from daemon.custody.refusal import Refusal
from daemon.custody.state import State
from daemon.custody.vault import Vault
from daemon.custody.watchdog import Watchdog
from hsm.errors import CredentialRefused, ModuleLost
from tests.daemon.custody.node import make_node

if TYPE_CHECKING:
    from pathlib import Path


class Connected:
    """A token as it is when nothing is wrong with it."""

    def __init__(self) -> None:
        self.versions: tuple[int, ...] = (1,)

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(identity_public=b"\2" * 33, current_kek=self.versions[-1], kek_versions=self.versions)

    def new_kek_version(self) -> None:
        self.versions = (*self.versions, self.versions[-1] + 1)


def test_a_disk_that_is_full_while_a_kek_is_made_has_the_token_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(tmp_path / "alice", "alice-server")
    state = State(node.state)
    vault: Any = Vault(read_policy(node.config, trusted=True), Watchdog(5), may_ask=False)
    vault.admit = state.admit
    vault._token = token = Connected()
    assert vault._note(token)
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(memory, "_write", refuse)
        vault.new_kek()
    assert (vault.state, vault._lost.is_set()) == ("token", True)
    vault._hold(token)  # returns: it is opened anew, and then
    assert vault._note(token)
    assert vault.state == "ready"
    assert state.highest_kek() == 2


def test_a_token_that_failed_is_asked_nothing_more_before_the_keeper_has_even_woken(tmp_path: Path) -> None:
    node = make_node(tmp_path / "alice", "alice-server")
    vault: Any = Vault(read_policy(node.config, trusted=True), Watchdog(5), may_ask=False)
    vault._token = token = Connected()
    assert vault._note(token)
    asked = []

    def fail(_: Connected) -> None:
        asked.append("once")
        raise ModuleLost("CKR_DEVICE_ERROR")

    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            vault._run("opening", fail)
        assert caught.value.kind == "token"
    assert asked == ["once"]
    assert (vault.state, vault._lost.is_set()) == ("token", True)
    assert vault._note(token)
    vault._away(CredentialRefused("wrong"))  # what the keeper found out is not overwritten by a call that ends late
    vault._lose()
    assert vault.state != "token"


def test_a_loss_is_felt_even_where_the_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(tmp_path / "alice", "alice-server")
    vault: Any = Vault(read_policy(node.config, trusted=True), Watchdog(5), may_ask=False)
    vault._token = token = Connected()
    assert vault._note(token)

    def gone(*_: object, **__: object) -> None:
        assert vault.state == "token"
        assert not vault._lost.is_set()  # a keeper that woke now would be done before the state was set
        raise BrokenPipeError

    monkeypatch.setattr(vault_module, "log", SimpleNamespace(info=gone))
    with pytest.raises(BrokenPipeError):
        vault._lose()
    assert (vault.state, vault._lost.is_set()) == ("token", True)
