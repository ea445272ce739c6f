from typing import Any

# Declarations: _direct.cdef.h. cffi checks every call against them at run time.
ffi: Any
lib: Any
