"""Threads and tasks: the loader's pool, hooks that hold a thread, supervision."""
