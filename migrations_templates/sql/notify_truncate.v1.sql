BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
  IF pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.>=) {full}::pg_catalog.float8 THEN
    -- A session that listens and does not read has filled the queue, and the commit would fail. The
    -- listeners see that it is full, and read everything again.
    RETURN NULL;
  END IF;
  PERFORM pg_catalog.pg_notify(
    {channel}, pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow}, 'null}}'));
  RETURN NULL;
END
