"""The share store and the audit log."""
