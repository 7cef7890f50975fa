DECLARE
  mute pg_catalog.text := pg_catalog.current_setting({mute}, true);
  gate pg_catalog.int8;
  at pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  rows pg_catalog.int8;
  bytes pg_catalog.int8;
  keys pg_catalog.json;
  old pg_catalog.json;
  new pg_catalog.json;
  left_to_do pg_catalog.bool := false;
BEGIN
  IF mute OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
  BEGIN
    gate := pg_catalog.pg_sequence_last_value('{schema}.outbox_gate'::pg_catalog.regclass);
    SELECT pg_catalog.count(*), pg_catalog.sum({size}), pg_catalog.json_agg(r.k), {old}, {new}
      INTO rows, bytes, keys, old, new
      FROM ({rows} LIMIT {some_rows} OPERATOR(pg_catalog.+) 1) AS r;
    IF mute OPERATOR(pg_catalog.=) 'mark' THEN
      PERFORM {schema}.outbox_mark({label}, {operation});
    ELSIF rows OPERATOR(pg_catalog.=) 0 THEN
      RETURN NULL;  -- no row changed
    ELSIF gate OPERATOR(pg_catalog.>) 2 THEN
      PERFORM {schema}.outbox_lose();  -- full
    ELSIF rows OPERATOR(pg_catalog.>) {some_rows} OR bytes OPERATOR(pg_catalog.>) {chunk_bytes} THEN
      IF NOT {schema}.outbox_fits(gate, (SELECT pg_catalog.count(*) FROM {table}) OPERATOR(pg_catalog.*) bytes OPERATOR(pg_catalog./) rows) THEN
        PERFORM {schema}.outbox_lose();
      ELSE
        -- Cut the running size into chunks, and count a small row as {row_bytes} bytes.
        INSERT INTO {schema}.outbox (slot, xid, label, op, keys, old, new, at)
          SELECT gate, pg_catalog.pg_current_xact_id(), {label}, {operation}, pg_catalog.json_agg(r.k), {old}, {new}, at
            FROM (SELECT r.*,
                         pg_catalog.sum(GREATEST({size}, {row_bytes}))
                           OVER (ROWS UNBOUNDED PRECEDING) OPERATOR(pg_catalog./) {chunk_bytes} AS chunk
                    FROM ({rows} OFFSET 0) AS r) AS r
           GROUP BY r.chunk;
      END IF;
    ELSE
      -- The row is written after this block: here it would take a transaction id of its own, for
      -- each statement. What may be wrong with the table shows here, where it does no harm.
      left_to_do := true;
      IF gate OPERATOR(pg_catalog.=) 0 THEN
        {probe_0};
      ELSIF gate OPERATOR(pg_catalog.=) 1 THEN
        {probe_1};
      ELSE
        {probe_2};
      END IF;
    END IF;
    IF gate OPERATOR(pg_catalog.<) 3
        AND pg_catalog.date_part('microseconds', at)::pg_catalog.int8 OPERATOR(pg_catalog.%) {one_in} OPERATOR(pg_catalog.=) 0 THEN
      PERFORM {schema}.outbox_measure(gate);
    END IF;
  EXCEPTION WHEN OTHERS THEN
    -- A write never fails because somebody watches. OTHERS leaves cancellation alone.
    RAISE WARNING 'pgobserve: trigger % can''t write what changed in %.% to the outbox (%); readers are told to begin again',
      TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM
      USING HINT = {hint};
    PERFORM pg_catalog.pg_notify(
      {channel}, pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow}, 'null}}'));
    BEGIN
      PERFORM {schema}.outbox_lose();
    EXCEPTION WHEN OTHERS THEN
      NULL;  -- The storage is gone, and every reader's place in it, too.
    END;
    RETURN NULL;
  END;
  IF left_to_do THEN
    IF gate OPERATOR(pg_catalog.=) 0 THEN
      {insert_0};
    ELSIF gate OPERATOR(pg_catalog.=) 1 THEN
      {insert_1};
    ELSE
      {insert_2};
    END IF;
  END IF;
{wake}  RETURN NULL;
END
