SELECT pg_catalog.pg_advisory_xact_lock(1885825890, 1936029302)
