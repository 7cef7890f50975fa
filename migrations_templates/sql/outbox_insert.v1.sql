INSERT INTO {partition} (slot, xid, label, op, keys, old, new, at)
        SELECT {slot}, pg_catalog.pg_current_xact_id(), {label}, {operation}, pg_catalog.json_agg(c.k), {old}, {new}, moment
          FROM (SELECT r.*,
                       -- Cut the running size into chunks, and count a small row as {row_bytes} bytes.
                       pg_catalog.sum(GREATEST({size}, {row_bytes}))
                         OVER (ROWS UNBOUNDED PRECEDING) OPERATOR(pg_catalog./) {chunk_bytes} AS chunk
                  FROM ({rows} OFFSET 0) AS r) AS c
         GROUP BY c.chunk
