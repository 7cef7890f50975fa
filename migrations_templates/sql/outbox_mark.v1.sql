CREATE OR REPLACE FUNCTION {schema}.outbox_mark(label pg_catalog.text, op pg_catalog.text)
  RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  -- One row for a whole table: TRUNCATE, or changes that were muted.
  INSERT INTO {schema}.outbox (slot, xid, label, op, at)
    SELECT g.last_value, pg_current_xact_id(), $1, $2, clock_timestamp()
      FROM {schema}.outbox_gate AS g WHERE g.last_value < 3;
  IF NOT FOUND THEN
    PERFORM {schema}.outbox_lose();
  END IF;
END
$pgobserve$
