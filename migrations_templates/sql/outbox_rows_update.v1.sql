SELECT {key} AS k, {old} AS old, {new} AS new
        FROM pgobserve_new AS n
             -- Not an inner join: planned for the first row that this session updated, it would
             -- run as a nested loop for the 100,000 of a later statement.
             FULL JOIN pgobserve_old AS o ON {same_key}
       WHERE {new_is_missing} OR {old_is_missing} OR {differs}
