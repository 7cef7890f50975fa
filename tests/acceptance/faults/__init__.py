"""Faults: servers, connections and processes that fail under load, and what clients have then."""
