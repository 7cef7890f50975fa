DECLARE
  keys pg_catalog.text[];
  routes pg_catalog.text[];
  longest pg_catalog.int4;
  bytes pg_catalog.int8;
  body pg_catalog.text;
  head pg_catalog.text;
{settings}BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
{pin}  BEGIN
    SELECT pg_catalog.array_agg(s.k), pg_catalog.array_agg(ARRAY[{values}]), pg_catalog.max(GREATEST(pg_catalog.octet_length(s.k), {lengths}))
      INTO keys, routes, longest
      FROM ({rows} LIMIT {one_key_more}) AS s;
  EXCEPTION WHEN OTHERS OR assert_failure THEN
    -- A write never fails because of a subscription. Cancellation is not caught,
    -- and failed assertions are: code of a type's owner may raise them.
    RAISE WARNING 'pgobserve: trigger % does not fit table %.% any more (%); readers load the table again',
      TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM
      USING HINT = {hint};
    keys := NULL;
    longest := {oversized};
  END;
{unpin}  IF longest IS NULL THEN
    RETURN NULL;  -- no row changed
  END IF;
  IF pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.>=) {full}::pg_catalog.float8 THEN
    -- A session that listens and does not read has filled the queue, and the commit would fail. The
    -- listeners see that it is full, and read everything again.
    RETURN NULL;
  END IF;
  head := pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow});
  IF longest OPERATOR(pg_catalog.>=) {oversized}
      OR pg_catalog.cardinality(keys) OPERATOR(pg_catalog.>) {most_keys} THEN
    -- Too many keys to name: mark the whole table as changed.
    PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat(head, 'null}}'));
    RETURN NULL;
  END IF;
  IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 1 THEN
    -- One row is what most statements change: no query.
    body := pg_catalog.concat('[', keys[1], {one_row});
    IF pg_catalog.octet_length(body) OPERATOR(pg_catalog.<=) {most_body} THEN
      IF pg_catalog.pg_notify({channel}, pg_catalog.concat(head, body)) IS NULL THEN
        NULL;  -- An expression: PERFORM runs a query, which costs more.
      END IF;
      RETURN NULL;
    END IF;
  END IF;
  -- Cut the running length into pieces; a piece may exceed its share by one key or value.
  FOR body, bytes IN
    SELECT pg_catalog.concat('[', pg_catalog.string_agg(p.v, ',') FILTER (WHERE p.i OPERATOR(pg_catalog.=) 0), {piece}), p.bytes
      FROM (SELECT u.i, u.v,
                   pg_catalog.sum(pg_catalog.octet_length(u.v) OPERATOR(pg_catalog.+) 1) OVER () AS bytes,
                   pg_catalog.sum(pg_catalog.octet_length(u.v) OPERATOR(pg_catalog.+) 1)
                     OVER (ROWS UNBOUNDED PRECEDING)
                     OPERATOR(pg_catalog./) ({room} OPERATOR(pg_catalog.-) longest OPERATOR(pg_catalog.-) 1) AS piece
              FROM (SELECT 0 AS i, k.v FROM pg_catalog.unnest(keys) AS k(v)
                    UNION ALL
                    SELECT DISTINCT
                           ((r.n OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) {sides} OPERATOR(pg_catalog.%) {columns})::pg_catalog.int4 OPERATOR(pg_catalog.+) 1,
                           r.v
                      FROM pg_catalog.unnest(routes) WITH ORDINALITY AS r(v, n)
                     WHERE r.v IS NOT NULL) AS u) AS p
     GROUP BY p.piece, p.bytes
  LOOP
    IF bytes OPERATOR(pg_catalog.>) {most_bytes} THEN
      PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat(head, 'null}}'));
      EXIT;
    END IF;
    PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat(head, body));
  END LOOP;
  RETURN NULL;
END
