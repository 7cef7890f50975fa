CREATE OR REPLACE FUNCTION pgobserve.{function}() RETURNS trigger LANGUAGE plpgsql AS {tag}{body}{tag}
