DECLARE
  marks pg_catalog.text;
  rows pg_catalog.int8;
  bytes pg_catalog.int8;
  images pg_catalog.text;
{settings}BEGIN
  -- This runs with the writer's rights. Casts, output functions and operators of the columns' types
  -- run here, and their owners must not gain the rights of the role that may write to the outbox.
  -- The next trigger has that right. It takes over the text alone.
  IF pg_catalog.current_setting({mute}, true) OPERATOR(pg_catalog.=) 'on' THEN
    -- The setting names the tables of which this transaction writes one mark.
    marks := pg_catalog.current_setting({marks}, true);
    IF pg_catalog.strpos(marks, {entry}) OPERATOR(pg_catalog.>) 0 THEN
      marks := pg_catalog.set_config({marks}, pg_catalog.replace(marks, {entry}, ' '), true);
      images := pg_catalog.set_config({setting}, '!', true);
    ELSE
      images := pg_catalog.set_config({setting}, '', true);
    END IF;
    RETURN NULL;
  END IF;
{pin}  BEGIN
    -- One row is what most statements change: no aggregates, and no join that sorts or hashes. With
    -- more rows, or another key, this query finds nothing, and reads no more than two rows to know.
    {one_row};
    IF images IS NULL OR pg_catalog.octet_length(images) OPERATOR(pg_catalog.>) {chunk_bytes} THEN
      SELECT pg_catalog.count(*), pg_catalog.sum({size}),
             pg_catalog.concat(pg_catalog.json_agg(r.k), {separator}, {old}, {separator}, {new})
        INTO rows, bytes, images
        FROM ({rows} LIMIT {some_rows} OPERATOR(pg_catalog.+) 1) AS r;
      IF rows OPERATOR(pg_catalog.=) 0 THEN
        images := '';
      ELSIF rows OPERATOR(pg_catalog.>) {some_rows} OR bytes OPERATOR(pg_catalog.>) {chunk_bytes} THEN
        IF NOT ({has_strange_types}) THEN
          -- No code but the next trigger's own and the server's can run: it reads the rows itself.
          images := '*';
        ELSIF (SELECT pg_catalog.count(*) FROM {table}) OPERATOR(pg_catalog.*) bytes OPERATOR(pg_catalog./) rows
            OPERATOR(pg_catalog.>) {most_bytes} THEN
          images := '!';
        ELSE
          SELECT pg_catalog.concat('*', pg_catalog.json_agg(pg_catalog.json_build_array(c.keys, c.old, c.new)))
            INTO images
            FROM (SELECT pg_catalog.json_agg(r.k) AS keys, {old} AS old, {new} AS new
                    FROM {chunks} AS r
                   GROUP BY r.chunk) AS c;
        END IF;
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS OR assert_failure THEN
    -- A write never fails because of a subscription. Cancellation is not caught,
    -- and failed assertions are: code of a type's owner may raise them.
    RAISE WARNING 'pgobserve: trigger % can''t write what changed in %.% to the outbox (%); readers start again',
      TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM
      USING HINT = {hint};
    images := '?';
  END;
{unpin}  -- Always, so that nothing is taken over that the writer has put there. And not within the block,
  -- which would keep what was there before, for each statement.
  images := pg_catalog.set_config({setting}, images, true);
  RETURN NULL;
END
