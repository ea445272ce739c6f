"""tssd: one party of a multi-party wallet, as a daemon. The network side; it knows no secret."""

import os

# Otherwise pydantic looks through all installed packages for plugins of its own and loads them, into the custodian too.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
