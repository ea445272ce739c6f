"""Builds ``hsm._direct`` from ``pkcs11_direct.c``: in place by ``python -m hsm.build``, for the wheel by setup.py."""

import tempfile
from pathlib import Path
from typing import Final

from cffi import FFI

HERE: Final = Path(__file__).parent

STRICT: Final = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
HARDENED: Final = ["-O2", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fvisibility=hidden"]


def extension(folder: Path) -> FFI:
    """Describe the extension; `folder` is where its sources are, as the compiler shall see it."""
    builder = FFI()
    builder.cdef("typedef struct { unsigned long type; void *pValue; unsigned long ulValueLen; } CK_ATTRIBUTE;")
    builder.cdef((HERE / "_direct.cdef.h").read_text(encoding="utf-8"))
    builder.set_source(
        "hsm._direct",
        # The warnings are for our file; cffi's generated wrappers do not keep to them.
        """
        #pragma GCC diagnostic ignored "-Wconversion"
        #pragma GCC diagnostic ignored "-Wextra"
        #include "pkcs11_direct.h"
        """,
        sources=[str(folder / "pkcs11_direct.c")],
        include_dirs=[str(folder)],
        depends=[str(folder / name) for name in ("pkcs11_direct.h", "cryptoki.h", "_direct.cdef.h")],
        libraries=["dl"],
        extra_compile_args=[*STRICT, *HARDENED],
        extra_link_args=["-Wl,-z,relro,-z,now"],
    )
    return builder


# setuptools wants paths relative to setup.py, which stands beside this package.
ffibuilder: Final = extension(Path(HERE.name))


def main() -> None:
    """Build beside the sources, leaving nothing else behind."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(extension(HERE).compile(tmpdir=scratch))
        target = HERE / made.name
        # Replaced, not overwritten: a process that has the old one mapped keeps it whole.
        fresh = target.with_suffix(".new")
        fresh.write_bytes(made.read_bytes())
        fresh.chmod(0o755)
        fresh.replace(target)


if __name__ == "__main__":
    main()
