SELECT {new_key}::pg_catalog.text AS k, {values} FROM pgobserve_new AS n
