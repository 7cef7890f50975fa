"""The LISTEN connection: from a notification to a change in the hub."""
