SELECT {old_key}::pg_catalog.text AS k, {values} FROM pgobserve_old AS o
