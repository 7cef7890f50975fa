"""Which tables a consumer's rows depend on."""
