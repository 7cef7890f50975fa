(SELECT r.*,
                         pg_catalog.sum(GREATEST({size}, {row_bytes}))
                           OVER (ROWS UNBOUNDED PRECEDING) OPERATOR(pg_catalog./) {chunk_bytes} AS chunk
                    FROM ({rows} OFFSET 0) AS r)
