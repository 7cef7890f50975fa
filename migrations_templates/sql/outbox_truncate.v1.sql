BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    RETURN NULL;
  END IF;
  BEGIN
    PERFORM {schema}.outbox_mark({label}, {operation});
  EXCEPTION WHEN OTHERS THEN
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
{wake}  RETURN NULL;
END
