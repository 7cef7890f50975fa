"""Which models are observed, and the state of their tables."""
