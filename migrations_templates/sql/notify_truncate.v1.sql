BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
  PERFORM pg_catalog.pg_notify(
    {channel}, pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow}, 'null}}'));
  RETURN NULL;
END
