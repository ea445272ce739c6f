"""The HTTP face on the Unix socket."""
