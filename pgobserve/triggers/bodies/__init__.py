"""The PL/pgSQL bodies of trigger functions. Pure: from a registration to SQL text."""
