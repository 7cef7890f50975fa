DECLARE
  gate pg_catalog.int8;
  moment pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
  BEGIN
    gate := pg_catalog.pg_sequence_last_value('pgobserve.outbox_gate'::pg_catalog.regclass);
    IF gate OPERATOR(pg_catalog.=) 0 THEN
      {insert_0};
    ELSIF gate OPERATOR(pg_catalog.=) 1 THEN
      {insert_1};
    ELSIF gate OPERATOR(pg_catalog.=) 2 THEN
      {insert_2};
    ELSE
      PERFORM FROM ({rows} LIMIT 1) AS r;
    END IF;
    IF NOT FOUND THEN
      RETURN NULL;  -- no row changed
    END IF;
    IF gate OPERATOR(pg_catalog.>) 2 THEN
      PERFORM pgobserve.outbox_lose();  -- full
    ELSIF pg_catalog.date_part('microseconds', moment)::pg_catalog.int8 OPERATOR(pg_catalog.%) {one_in} OPERATOR(pg_catalog.=) 0 THEN
      PERFORM pgobserve.outbox_measure(gate);
    END IF;
  EXCEPTION WHEN OTHERS THEN
    -- A write never fails because somebody watches. OTHERS leaves cancellation alone.
    RAISE WARNING 'pgobserve: trigger % can''t write what changed in %.% to the outbox (%); readers are told to begin again',
      TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM
      USING HINT = {hint};
    PERFORM pg_catalog.pg_notify(
      {channel}, pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow}, 'null}}'));
    BEGIN
      PERFORM pgobserve.outbox_lose();
    EXCEPTION WHEN OTHERS THEN
      NULL;  -- The storage is gone, and every reader's place in it, too.
    END;
    RETURN NULL;
  END;
{wake}  RETURN NULL;
END
