"""tssd: one party of a multi-party wallet, as a daemon. The network side; it knows no secret."""
