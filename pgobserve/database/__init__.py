"""The loader's database connections: sessions, timeouts, watchdog, server identity."""
