"""Imports point one way: see docs/design.md. Read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"daemon", "hsm", "tss_cffi", "localnet"}
PROCESS = "daemon.custody.custodian"
"""The custodian's process: the one place where daemon meets hsm and tss_cffi."""


def modules(package: str) -> dict[str, Path]:
    files = {}
    for file in (ROOT / package).rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported(module: str, file: Path) -> set[str]:
    """Modules of ours that a file imports, at any depth, for types too."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            names.add(source)
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] in OURS}


def foreign(source: str) -> set[str]:
    """Packages that a source imports from outside, in whichever form."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - OURS


def test_every_form_of_an_import_is_read() -> None:
    source = (
        "import a.b, c as d\nfrom e.f import g\ndef h():\n    from i import j as k\nfrom . import l\nfrom .m import n"
    )
    assert foreign(source) == {"a", "c", "e", "i"}


def reachable(start: str) -> set[str]:
    """Everything of daemon that is loaded with a module."""
    files = modules("daemon")
    seen: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        if module in files and module not in seen:
            seen.add(module)
            todo += imported(module, files[module])
    return seen


@pytest.mark.parametrize("package", ["hsm", "tss_cffi"])
def test_hsm_and_core_import_nothing_of_ours_but_themselves(package: str) -> None:
    for module, file in modules(package).items():
        assert {name.partition(".")[0] for name in imported(module, file)} <= {package}, module


def test_the_network_side_never_reaches_hsm_or_core() -> None:
    for start in ("daemon.__main__", "daemon.ctl", "daemon.api.server", "daemon.desk", "daemon.custody.client"):
        for module in reachable(start):
            touched = {name.partition(".")[0] for name in imported(module, modules("daemon")[module])}
            assert touched <= {"daemon"}, f"{start} reaches {module}, which imports {touched - {'daemon'}}"


def test_only_the_custodians_process_meets_hsm_and_core() -> None:
    behind_the_wall = reachable(PROCESS)
    for module, file in modules("daemon").items():
        touched = {name.partition(".")[0] for name in imported(module, file)}
        if touched & {"hsm", "tss_cffi"}:
            assert module in behind_the_wall, module
        assert "localnet" not in touched, module


def test_the_custodian_reads_no_database_and_speaks_to_no_network() -> None:
    files = modules("daemon")
    for module in reachable(PROCESS):
        assert not module.startswith(("daemon.shares", "daemon.network", "daemon.api", "daemon.ceremonies")), module
        outside = foreign(files[module].read_text())
        assert not outside & {"sqlite3", "sqlite_utils", "httpx", "trio_websocket", "asyncssh", "json"}, module


def test_nobody_imports_localnet() -> None:
    for package in ("daemon", "hsm", "tss_cffi"):
        for module, file in modules(package).items():
            assert not any(name.startswith("localnet") for name in imported(module, file)), module


def test_the_daemons_process_has_neither_loaded() -> None:
    code = "import sys, daemon.__main__; print({m.split('.')[0] for m in sys.modules} & {'hsm', 'tss_cffi', 'pkcs11'})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "set()"


PLUGIN = """
class Plugin:
    def new_schema_validator(self, *_, **__):
        return None, None, None

plugin = Plugin()
print("loaded")
"""


@pytest.mark.parametrize(("program", "says"), [(f"import {PROCESS}", ""), ("import pydantic", "loaded\n")])
def test_no_plugin_of_a_librarys_gets_into_the_custodian(tmp_path: Path, program: str, says: str) -> None:
    """Any package that is installed may bring one; pydantic loads them when the first model is made."""
    (tmp_path / "stranger.py").write_text(PLUGIN)
    about = tmp_path / "stranger-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pydantic]\nstranger = stranger:plugin\n")
    model = f"{program}\nfrom pydantic import BaseModel\nclass Model(BaseModel): pass\n"
    said = subprocess.run(
        [sys.executable, "-c", model],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert said == says


def test_the_custodian_loads_no_terminals_colours_and_no_other_loop() -> None:
    program = f"import {PROCESS}, sys; print(*sorted({{'asyncio', 'rich', 'structlog', 'trio'}} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=True, text=True).stdout
    assert said == "\n"
