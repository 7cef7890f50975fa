"""Reading the outbox: pages, cursors, events."""
