CREATE OR REPLACE FUNCTION {schema}.outbox_empty(slot pg_catalog.int4, seen pg_catalog.pg_snapshot)
  RETURNS pg_catalog.text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
DECLARE
  found_rows bool;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM {schema}.outbox_%s)', slot) INTO found_rows;
  IF found_rows THEN
    EXECUTE format('LOCK TABLE {schema}.outbox_%s IN ACCESS EXCLUSIVE MODE NOWAIT', slot);
    -- A writer that looked which slot it is before the slot changed, and wrote after.
    EXECUTE format(
      'SELECT EXISTS (SELECT FROM {schema}.outbox_%s WHERE xid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(xid, $1))',
      slot) INTO found_rows USING seen;
    IF found_rows THEN
      UPDATE {schema}.outbox_state
         SET quiet_at[slot + 1] = clock_timestamp(), quiet[slot + 1] = pg_current_snapshot();
      RETURN 'quiet';
    END IF;
    EXECUTE format('TRUNCATE {schema}.outbox_%s', slot);
    UPDATE {schema}.outbox_state SET horizon = seen;
  END IF;
  UPDATE {schema}.outbox_state SET empty_slot = slot;
  RETURN 'emptied';
EXCEPTION WHEN lock_not_available THEN
  RETURN 'busy';
END
$pgobserve$
