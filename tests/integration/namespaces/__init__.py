"""Several projects in one database."""
