"""Threshold signatures, one party at a time: a sans-IO C core (include/tss.h) behind a typed face.

```python
open_arena(16 * 1024 * 1024)
with SigningParty(share, signers=(1, 3), digest=digest) as party:
    while party.state not in (PartyState.DONE, PartyState.FAILED):
        for message in party.outgoing():
            ...                                     # carry it to message.to, or to everybody
        party.receive(sender, message_class, data)  # what a peer sent
    signature = party.result()
```
"""

from .errors import (
    ArenaFull,
    ArenaUnavailable,
    Fault,
    KeyMaterialRefused,
    Misuse,
    NoResult,
    NotNeeded,
    PartyFinal,
    PeerFault,
    Stranger,
    TssError,
)
from .party import KeygenParty, Message, MessageClass, Party, PartyState, Signature, SigningParty
from .prepare import PreParameterSearch, prepared_fingerprints
from .secret import SecretBytes, Usage, arena_usage, close_arena, open_arena
from .share import Protocol, Share, ShareInfo

__all__ = [
    "ArenaFull",
    "ArenaUnavailable",
    "Fault",
    "KeyMaterialRefused",
    "KeygenParty",
    "Message",
    "MessageClass",
    "Misuse",
    "NoResult",
    "NotNeeded",
    "Party",
    "PartyFinal",
    "PartyState",
    "PeerFault",
    "PreParameterSearch",
    "Protocol",
    "SecretBytes",
    "Share",
    "ShareInfo",
    "Signature",
    "SigningParty",
    "Stranger",
    "TssError",
    "Usage",
    "arena_usage",
    "close_arena",
    "open_arena",
    "prepared_fingerprints",
]
