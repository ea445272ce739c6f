"""Pre-parameters made ahead: searched for in slices, sealed when found."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from daemon.custody import rows
from daemon.custody.refusal import Refusal
from daemon.custody.wire import PreparedRow, Preparing
from tss_cffi import NotNeeded, PreParameterSearch, Protocol, prepared_fingerprints

if TYPE_CHECKING:
    from daemon.custody.vault import Vault
    from daemon.custody.wire import ProtocolName
    from tss_cffi import SecretBytes


class Preparation:
    """One search for each protocol; for one thread."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._searches: dict[str, PreParameterSearch] = {}
        self._found: dict[str, SecretBytes] = {}

    def work(self, protocol: ProtocolName, milliseconds: int) -> Preparing:
        """Go on with the search for so long. Raises Refusal."""
        found = self._found.get(protocol)
        if found is None:
            search = self._search(protocol)
            until = time.monotonic() + min(milliseconds, 1000) / 1000
            while found is None and time.monotonic() < until:
                found = search.step()
            if found is None:
                return Preparing(permille=search.permille, prepared=None)
            # Kept until it is sealed: the HSM may be away just now.
            del self._searches[protocol]
            self._found[protocol] = found
        prepared_id = str(uuid.uuid4())
        fingerprints = tuple(prepared_fingerprints(found))
        blob = self._vault.seal(found, rows.prepared_header(prepared_id, protocol, fingerprints))
        self._found.pop(protocol).close()
        row = PreparedRow(
            prepared_id=prepared_id, protocol=protocol, fingerprints=fingerprints, sealed=rows.sealed_of(blob)
        )
        return Preparing(permille=1000, prepared=row)

    def _search(self, protocol: ProtocolName) -> PreParameterSearch:
        if protocol not in self._searches:
            try:
                self._searches[protocol] = PreParameterSearch(Protocol.of(protocol))
            except NotNeeded as error:
                raise Refusal("refused", str(error), "protocol") from None
        return self._searches[protocol]
