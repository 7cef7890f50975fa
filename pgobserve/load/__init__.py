"""The loader: takes what changed from the hub, reads and renders it in threads, and delivers it."""
