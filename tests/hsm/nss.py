"""A throw-away token of NSS softokn, a second real provider: a database with a PIN, made by the module itself."""

import secrets
import subprocess
import sys
from pathlib import Path

from hsm import NotConforming
from tests.hsm.soft import SoftToken

MODULES = (
    Path("/usr/lib/x86_64-linux-gnu/libsoftokn3.so"),
    Path("/usr/lib/aarch64-linux-gnu/libsoftokn3.so"),
    Path("/usr/lib64/libsoftokn3.so"),
)

MAKE = """
import sys
from pkcs11 import _pkcs11
from hsm._direct import ffi, lib
path, init, pin = sys.argv[1:]
library = _pkcs11.lib.__new__(_pkcs11.lib, path)
module = lib.hsm_module_open(path.encode())
assert lib.hsm_initialize(module, init.encode(), ffi.new("int *")) == 0
for slot in library.get_slots(True):
    token = slot.get_token()
    if token.label == "NSS Certificate DB":
        token.open(rw=True, so_pin="").init_pin(pin)
"""


def token_in(directory: Path) -> SoftToken:
    """The token that is, or will be, in a directory."""
    module = next((path for path in MODULES if path.exists()), None)
    if module is None:
        raise NotConforming("NSS softokn is not installed: package libnss3")
    init = f"configdir='sql:{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= "
    return SoftToken(directory, "NSS Certificate DB", {"module_path": module, "profile": "nss", "init_string": init})


def make_token(directory: Path) -> SoftToken:
    token = token_in(directory)
    pin = secrets.token_hex(16)
    directory.mkdir(mode=0o700)
    options = token.options
    subprocess.run([sys.executable, "-c", MAKE, options["module_path"], options["init_string"], pin], check=True)
    token.pin_file.write_text(pin)
    token.pin_file.chmod(0o400)
    return token
