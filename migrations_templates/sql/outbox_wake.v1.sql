  -- One transaction of each slot at a time wakes the readers, which then poll more often for a while:
  -- with NOTIFY, all commits of the cluster queue for one lock. Where another session holds the slots,
  -- or has filled the queue, readers poll once a second.
  IF pg_catalog.pg_try_advisory_xact_lock(
      {namespace}, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.%) {slots})
      AND pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) {full}::pg_catalog.float8 THEN
    IF pg_catalog.pg_notify({channel}, {payload}) IS NULL THEN
      NULL;  -- An expression: PERFORM runs a query, which costs more.
    END IF;
  END IF;
