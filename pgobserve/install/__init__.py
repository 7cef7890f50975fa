"""Which models are observed, and how their tables stand."""
