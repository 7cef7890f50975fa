DECLARE
  marks pg_catalog.text;
BEGIN
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    marks := pg_catalog.current_setting({marks}, true);
    IF marks IS NULL OR pg_catalog.strpos(marks, {entry}) OPERATOR(pg_catalog.=) 0 THEN
      RETURN NULL;
    END IF;
    marks := pg_catalog.set_config({marks}, pg_catalog.replace(marks, {entry}, ' '), true);
  END IF;
  BEGIN
    PERFORM {schema}.outbox_mark({label}, CASE WHEN marks IS NULL THEN {operation} ELSE 'U' END);
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
