CREATE OR REPLACE FUNCTION pgobserve.{function}() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {tag}{body}{tag}
