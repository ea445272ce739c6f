"""Builds ``tss_cffi._core`` from ``src/tss.c``: in place by ``python tss_cffi/build.py``, for the wheel by setup.py.

(Not with ``-m``: the package cannot be imported before its core is there.)

The declarations come out of the public headers, so that there is one place for each. Other builds go to ``build/``,
each a copy of the package with a core of its own, for tests:

- ``--seeded``: ``build/seeded/tss_cffi_seeded``, randomness that can be seeded and save data that can be exported
  (``src/tss_seeded.h``); imported beside the ordinary package. Never in a wheel.
- ``--portable``: the same in ``build/portable``, for processors without AVX-512 IFMA.
- ``--sanitize``: the same in ``build/sanitize``, with address and undefined-behaviour sanitizers; libasan preloaded.
- ``--coverage``: the same in ``build/coverage``, counting lines for gcov.
"""

import argparse
import contextlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cffi import FFI
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = Path(__file__).parent.name

HEADERS: Final = ("include/tss.h", "include/tss_channel.h")
SEEDED_HEADER: Final = "src/tss_seeded.h"

STRICT: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror")
HARDENED: Final = (
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
)
LINKED: Final = ("-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-Wl,--as-needed")
LIBRARIES: Final = ("gmp", "crypto", "secp256k1")


class Variant(NamedTuple):
    """One way to build: the package it makes, where, and with which flags."""

    package: str = PACKAGE
    folder: Path = ROOT
    compile_args: tuple[str, ...] = ("-O3", *HARDENED)
    link_args: tuple[str, ...] = LINKED
    seeded: bool = False


VARIANTS: Final = {
    "plain": Variant(),
    "seeded": Variant(
        package=f"{PACKAGE}_seeded",
        folder=ROOT / "build" / "seeded",
        compile_args=("-O3", *HARDENED, "-DTSS_SEEDED", "-DTSS_VERIFY"),
        seeded=True,
    ),
    "portable": Variant(
        package=f"{PACKAGE}_seeded",
        folder=ROOT / "build" / "portable",
        compile_args=("-O3", *HARDENED, "-DTSS_SEEDED", "-DTSS_VERIFY", "-DTSS_IFMA_OFF"),
        seeded=True,
    ),
    "sanitize": Variant(
        package=f"{PACKAGE}_seeded",
        folder=ROOT / "build" / "sanitize",
        compile_args=(
            "-O2",
            "-g",
            "-fvisibility=hidden",
            "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-DTSS_SEEDED",
            "-DTSS_VERIFY",
            # Instrumented, the kernel of eight lanes takes ten times as long; test_c_units.py sanitizes it.
            "-DTSS_IFMA_UNSANITIZED",
            "-DSECRET_STACK_LEN=1048576",
        ),
        link_args=("-fsanitize=address,undefined",),
        seeded=True,
    ),
    "coverage": Variant(
        package=f"{PACKAGE}_seeded",
        folder=ROOT / "build" / "coverage",
        compile_args=("-O1", "-g", "-fvisibility=hidden", "--coverage", "-DTSS_SEEDED"),
        link_args=("--coverage",),
        seeded=True,
    ),
}


def declarations(header: str) -> str:
    """What cffi's parser takes of a public header: constants and declarations, without preprocessor and attributes."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    constants = re.findall(r"^#define[ \t]+(TSS_\w+)[ \t]+(\S.*)$", text, flags=re.MULTILINE)
    body = re.sub(r"^[ \t]*#.*$", "", text, flags=re.MULTILINE)
    body = re.sub(r"\bTSS_(API|MUST_USE)\b", "", body)
    # A plain number can be the length of an array; what is computed is asked of the compiler.
    lines = [
        f"#define {name} {value.strip() if re.fullmatch(r'(0x)?[0-9a-fA-F]+u?', value.strip()) else '...'}"
        for name, value in constants
        if "__" not in value
    ]
    return "\n".join([*lines, body])


def extension(variant: Variant, package: Path) -> FFI:
    """Describe the extension; `package` is where the sources are, as the compiler shall see it."""
    here = Path(__file__).parent
    core = (here / "src" / "tss.c").read_text(encoding="utf-8")
    headers = [name for name in HEADERS if Path(name).name in core]
    if variant.seeded:
        headers.append(SEEDED_HEADER)
    builder = FFI()
    for name in headers:
        builder.cdef(declarations((here / name).read_text(encoding="utf-8")))
    includes = "\n".join(f'#include "{Path(name).name}"' for name in headers)
    builder.set_source(
        f"{variant.package}._core",
        # The warnings are for our files; cffi's generated wrappers do not keep to them.
        f"""
        #pragma GCC diagnostic ignored "-Wconversion"
        #pragma GCC diagnostic ignored "-Wextra"
        {includes}
        """,
        sources=[str(package / "src" / "tss.c")],
        include_dirs=[str(package / "include"), str(package / "src")],
        depends=[str(package / path.relative_to(here)) for path in sorted(here.rglob("*.h"))],
        libraries=list(LIBRARIES),
        extra_compile_args=[*STRICT, *variant.compile_args],
        extra_link_args=list(variant.link_args),
    )
    return builder


# setuptools wants paths relative to setup.py, which stands beside this package.
ffibuilder: Final = extension(VARIANTS["plain"], Path(PACKAGE))


def build(variant: Variant) -> Path:
    """Compile one variant, with the package around it where that is another; return the folder to import from."""
    target = variant.folder / variant.package
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(ROOT):
        described: Extension = extension(variant, Path(PACKAGE)).distutils_extension(scratch)
        described.py_limited_api = True  # as setup.py has it: one name for the file, whoever made it
        command = build_ext(Distribution({"name": variant.package, "ext_modules": [described]}))
        command.build_lib = f"{scratch}/lib"
        # gcov looks for its notes where the objects were.
        command.build_temp = str(variant.folder / "objects") if variant.folder != ROOT else f"{scratch}/objects"
        command.force = True
        command.ensure_finalized()
        command.run()
        made = Path(command.get_ext_fullpath(described.name))
        target.mkdir(parents=True, exist_ok=True)
        # Replaced, not overwritten: a process that has the old one mapped keeps it whole.
        shutil.copy2(made, target / f"{made.name}.new")
        (target / f"{made.name}.new").replace(target / made.name)
    for old in target.glob("_core.*.so"):
        if old.name != made.name:
            old.unlink()
    if target != Path(__file__).parent:
        for old in target.glob("*.py*"):
            old.unlink()
        for source in Path(__file__).parent.glob("*.py*"):
            (target / source.name).symlink_to(source)
    return variant.folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the variants asked for; without any, the ordinary one in place."""
    parser = argparse.ArgumentParser(prog=f"python {PACKAGE}/build.py", description="Build the C core.")
    for name in VARIANTS:
        parser.add_argument(f"--{name}", action="append_const", dest="names", const=name)
    for name in parser.parse_args(arguments).names or ["plain"]:
        build(VARIANTS[name])


if __name__ == "__main__":
    main()
