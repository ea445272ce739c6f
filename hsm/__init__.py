"""Keys in a PKCS#11 HSM: sealing shares under them, signing as this node. Knows no ceremonies and no sockets.

`open_token` gives a `Token`; docs/sealing.md has what it stores. The C extension is built by ``python -m hsm.build``.
"""

import importlib.util

if importlib.util.find_spec("hsm._direct") is not None:
    from hsm.blob import Chunk, SealedBlob, SealHeader
    from hsm.connection import TokenSettings
    from hsm.errors import (
        CKR,
        CapacityExceeded,
        CredentialRefused,
        DataAltered,
        HsmError,
        ModuleLost,
        NotConforming,
        SessionLost,
        TokenLost,
    )
    from hsm.pin import CredentialIdentity, Pin, PinLatch
    from hsm.profiles import PROFILES, IvSource, Profile
    from hsm.sealing import LockedMemory
    from hsm.token import Token, TokenStatus, open_token
else:

    def __getattr__(name: str) -> object:
        # `python -m hsm.build` comes through here before there is an extension, and must get past.
        raise ImportError(f"hsm.{name}: the C extension is not built; run `python -m hsm.build`")


__all__ = [
    "CKR",
    "PROFILES",
    "CapacityExceeded",
    "Chunk",
    "CredentialIdentity",
    "CredentialRefused",
    "DataAltered",
    "HsmError",
    "IvSource",
    "LockedMemory",
    "ModuleLost",
    "NotConforming",
    "Pin",
    "PinLatch",
    "Profile",
    "SealHeader",
    "SealedBlob",
    "SessionLost",
    "Token",
    "TokenLost",
    "TokenSettings",
    "TokenStatus",
    "open_token",
]
