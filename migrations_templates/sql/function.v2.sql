CREATE OR REPLACE FUNCTION {schema}.{function}() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER{config} AS {tag}{body}{tag}
