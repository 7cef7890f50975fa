SELECT {new_key}::pg_catalog.text AS k FROM pgobserve_new AS n
