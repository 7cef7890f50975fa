CREATE OR REPLACE FUNCTION {schema}.outbox_rotate(retention pg_catalog.float8) RETURNS pg_catalog.text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgobserve$
-- Takes one step and waits for no lock. Writers are not affected; a reader waits for a TRUNCATE at most.
-- Triggers write to a slot for half the retention. It then rests as long, and is emptied when its turn
-- comes again: its rows have been visible for longer than the retention by then.
DECLARE
  state {schema}.outbox_state%ROWTYPE;
  moment timestamptz := clock_timestamp();
  span interval := make_interval(secs => retention);
  current int4;
  next int4;
  slot int4;
  seen pg_snapshot;
BEGIN
  -- A lock on our own row: an advisory lock could be taken by any role that may connect.
  SELECT * INTO state FROM {schema}.outbox_state FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN 'elsewhere';
  END IF;
  SELECT g.last_value % 3 INTO current FROM {schema}.outbox_gate AS g;
  next := (current + 1) % 3;
  -- Whose writers have all ended? From then on its rows can be seen.
  FOR slot IN SELECT s FROM generate_series(0, 2) AS s WHERE s <> current AND state.quiet_at[s + 1] IS NULL LOOP
    BEGIN
      EXECUTE format('LOCK TABLE {schema}.outbox_%s IN SHARE MODE NOWAIT', slot);
      seen := pg_current_snapshot();
      RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
    EXCEPTION
      WHEN lock_not_available THEN
        CONTINUE;
      WHEN raise_exception THEN
        UPDATE {schema}.outbox_state
           SET quiet_at[slot + 1] = clock_timestamp(), quiet[slot + 1] = seen;
        RETURN 'quiet';
    END;
  END LOOP;
  IF moment < state.rotated_at + span / 2 THEN
    RETURN 'early';
  END IF;
  IF state.empty_slot = next THEN
    -- Not in the transaction that emptied it: the next writers must find no lock on it.
    IF EXISTS (SELECT FROM pg_locks AS l
                WHERE l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock'
                  AND l.relation = format('{schema}.outbox_%s', next)::regclass) THEN
      RETURN 'early';
    END IF;
    UPDATE {schema}.outbox_state
       SET rotated_at = moment, empty_slot = NULL,
           quiet_at[next + 1] = NULL, quiet[next + 1] = NULL,
           quiet_at[current + 1] = NULL, quiet[current + 1] = NULL;
    PERFORM {schema}.outbox_turn(next);
    RETURN 'advanced';
  ELSIF state.quiet_at[next + 1] IS NULL THEN
    RETURN 'busy';
  ELSIF moment < state.quiet_at[next + 1] + span THEN
    RETURN 'early';
  END IF;
  RETURN {schema}.outbox_empty(next, state.quiet[next + 1]);
END
$pgobserve$
