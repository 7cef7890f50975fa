EXISTS (
        WITH RECURSIVE types(oid) AS (
          SELECT a.atttypid
            FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid OPERATOR(pg_catalog.=) TG_RELID AND a.attnum OPERATOR(pg_catalog.>) 0
             AND NOT a.attisdropped AND a.atttypid OPERATOR(pg_catalog.>=) {first_oid}::pg_catalog.oid
          UNION
          SELECT x.oid
            FROM types AS t
            JOIN pg_catalog.pg_type AS y ON y.oid OPERATOR(pg_catalog.=) t.oid
           CROSS JOIN LATERAL (
             SELECT y.typelem AS oid
             UNION ALL
             SELECT y.typbasetype
             UNION ALL
             SELECT g.rngsubtype FROM pg_catalog.pg_range AS g
              WHERE y.oid OPERATOR(pg_catalog.=) g.rngtypid OR y.oid OPERATOR(pg_catalog.=) g.rngmultitypid
             UNION ALL
             SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid OPERATOR(pg_catalog.=) y.typrelid AND a.attnum OPERATOR(pg_catalog.>) 0
                AND NOT a.attisdropped) AS x
           WHERE x.oid OPERATOR(pg_catalog.>=) {first_oid}::pg_catalog.oid)
        SELECT FROM types AS t
          JOIN pg_catalog.pg_type AS y ON y.oid OPERATOR(pg_catalog.=) t.oid
          JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) y.typowner
         WHERE NOT o.rolsuper AND y.typowner OPERATOR(pg_catalog.<>) {owner})
