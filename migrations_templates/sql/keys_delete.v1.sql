SELECT {old_key}::pg_catalog.text AS k FROM pgobserve_old AS o
