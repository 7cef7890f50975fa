DECLARE
  keys pg_catalog.text[];
  longest pg_catalog.int4;
  body pg_catalog.text;
  head pg_catalog.text;
{settings}BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
{pin}  BEGIN
    SELECT pg_catalog.array_agg(s.k), pg_catalog.max(pg_catalog.octet_length(s.k))
      INTO keys, longest
      FROM ({keys} LIMIT {one_key_more}) AS s;
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
  IF longest OPERATOR(pg_catalog.<) {oversized}
      AND pg_catalog.cardinality(keys) OPERATOR(pg_catalog.<=) {most_keys} THEN
    body := pg_catalog.array_to_string(keys, ',');
  END IF;
  IF body IS NULL OR pg_catalog.octet_length(body) OPERATOR(pg_catalog.>) {most_bytes} THEN
    -- Too many keys to name: mark the whole table as changed.
    PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat(head, 'null}}'));
  ELSIF pg_catalog.octet_length(body) OPERATOR(pg_catalog.<=) {room} THEN
    IF pg_catalog.pg_notify({channel}, pg_catalog.concat(head, '[', body, ']}}')) IS NULL THEN
      NULL;  -- An expression: PERFORM runs a query, which costs more.
    END IF;
  ELSE
    -- Cut the running length into pieces; a piece may exceed its share by one key.
    FOR body IN
      SELECT pg_catalog.string_agg(p.k, ',')
        FROM (SELECT u.k,
                     pg_catalog.sum(pg_catalog.octet_length(u.k) OPERATOR(pg_catalog.+) 1)
                       OVER (ROWS UNBOUNDED PRECEDING)
                       OPERATOR(pg_catalog./) ({room} OPERATOR(pg_catalog.-) longest OPERATOR(pg_catalog.-) 1) AS piece
                FROM pg_catalog.unnest(keys) AS u(k)) AS p
       GROUP BY p.piece
    LOOP
      PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat(head, '[', body, ']}}'));
    END LOOP;
  END IF;
  RETURN NULL;
END
