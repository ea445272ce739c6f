# The compiled core: cffi gives its objects no types; the modules of this package are the typed face.

from typing import Any

ffi: Any
lib: Any
