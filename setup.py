"""The compiled parts; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["tss_cffi/build.py:ffibuilder", "hsm/build.py:ffibuilder"])
