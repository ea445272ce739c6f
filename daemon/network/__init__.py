"""Coordinator, router, peers and event sinks."""
