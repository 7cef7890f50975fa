CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {table}{transition_tables}
  FOR EACH STATEMENT EXECUTE FUNCTION {schema}.{function}()
