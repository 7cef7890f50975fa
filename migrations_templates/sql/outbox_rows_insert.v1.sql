SELECT {key} AS k, pg_catalog.row_to_json(n.*) AS new FROM pgobserve_new AS n
