"""tssctl, one file per noun."""
