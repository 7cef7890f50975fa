DECLARE
  images pg_catalog.text := pg_catalog.current_setting({setting}, true);
  at pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  gate pg_catalog.int8;
  emptied pg_catalog.text;
  left_to_do pg_catalog.bool := false;
{settings}BEGIN
  -- This runs with the rights of the role that installed it. The trigger before it has made the text
  -- with the writer's: '[…' keys, old and new images; '*…' chunks of the three; '*' the rows are to be
  -- read here; '!' any row of the table; '?' it has failed; nothing, if no row changed or it is muted.
  IF images IS NULL OR images OPERATOR(pg_catalog.=) '' THEN
    RETURN NULL;
  END IF;
  -- The writer may not see all columns of the row, and must not find them there.
  emptied := pg_catalog.set_config({setting}, '', true);
  BEGIN
    gate := pg_catalog.pg_sequence_last_value('{schema}.outbox_gate'::pg_catalog.regclass);
    IF pg_catalog.starts_with(images, '[') AND gate OPERATOR(pg_catalog.<) 3 THEN
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
    ELSIF images OPERATOR(pg_catalog.=) '?' THEN
      {notify};
      PERFORM {schema}.outbox_lose();
      RETURN NULL;
    ELSIF images OPERATOR(pg_catalog.=) '!' THEN
      PERFORM {schema}.outbox_mark({label}, 'U');
    ELSIF gate OPERATOR(pg_catalog.>) 2 THEN
      PERFORM {schema}.outbox_lose();  -- full
    ELSIF images OPERATOR(pg_catalog.<>) '*' THEN
      IF NOT {schema}.outbox_fits(gate, pg_catalog.octet_length(images)) THEN
        PERFORM {schema}.outbox_lose();
      ELSE
        INSERT INTO {schema}.outbox (slot, xid, label, op, keys, old, new, at)
          SELECT gate, pg_catalog.pg_current_xact_id(), {label}, {operation}, c.c OPERATOR(pg_catalog.->) 0, {old_in_chunk}, {new_in_chunk}, at
            FROM pg_catalog.json_array_elements(pg_catalog.substr(images, 2)::pg_catalog.json) AS c(c);
      END IF;
    ELSIF {has_strange_types} THEN
      PERFORM {schema}.outbox_mark({label}, {operation});
    ELSIF NOT {schema}.outbox_fits(gate, (
        SELECT (SELECT pg_catalog.count(*) FROM {table}) OPERATOR(pg_catalog.*) pg_catalog.sum({size})::pg_catalog.int8 OPERATOR(pg_catalog./) pg_catalog.count(*)
          FROM ({rows} LIMIT {some_rows}) AS r)) THEN
      PERFORM {schema}.outbox_lose();
    ELSE
{pin}      -- Cut the running size into chunks, and count a small row as {row_bytes} bytes.
      INSERT INTO {schema}.outbox (slot, xid, label, op, keys, old, new, at)
        SELECT gate, pg_catalog.pg_current_xact_id(), {label}, {operation}, pg_catalog.json_agg(r.k), {old}, {new}, at
          FROM {chunks} AS r
         GROUP BY r.chunk;
{unpin}    END IF;
    IF gate OPERATOR(pg_catalog.<) 3
        AND (pg_catalog.date_part('epoch', at) OPERATOR(pg_catalog.*) 1e6::pg_catalog.float8)::pg_catalog.int8 OPERATOR(pg_catalog.%) {one_in} OPERATOR(pg_catalog.=) 0 THEN
      PERFORM {schema}.outbox_measure(gate);
    END IF;
  EXCEPTION WHEN OTHERS OR assert_failure THEN
    -- A write never fails because of a subscription. Cancellation is not caught,
    -- and failed assertions are: code of a type's owner may raise them.
    RAISE WARNING 'pgobserve: trigger % can''t write what changed in %.% to the outbox (%); readers start again',
      TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM
      USING HINT = {hint};
    {notify};
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
