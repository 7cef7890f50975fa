  -- One transaction of each slot at a time wakes the readers, who then look more often for a while:
  -- NOTIFY makes all commits of the cluster queue for one lock.
  IF pg_catalog.pg_try_advisory_xact_lock(
      {namespace}, (pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.%) {slots})::pg_catalog.int4) THEN
    PERFORM pg_catalog.pg_notify({channel}, {payload});
  END IF;
