CREATE OR REPLACE FUNCTION {schema}.outbox_fits(slot pg_catalog.int8, more pg_catalog.int8)
  RETURNS pg_catalog.bool LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  -- One slot may take a third of what all may.
  RETURN (SELECT pg_total_relation_size(('{schema}.outbox_' || slot)::regclass) + more < s.max_bytes / 3
            FROM {schema}.outbox_state AS s);
END
$pgobserve$
