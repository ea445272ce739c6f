"""One readable function per ceremony, and what they share."""
