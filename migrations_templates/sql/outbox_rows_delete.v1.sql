SELECT {key} AS k, pg_catalog.row_to_json(o.*) AS old FROM pgobserve_old AS o
