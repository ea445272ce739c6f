"""A coordinator, a router and n real daemons on one machine."""
