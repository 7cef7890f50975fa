INSERT INTO {partition} (slot, xid, label, op, keys, old, new, at)
          SELECT {slot}, pg_catalog.pg_current_xact_id(), {label}, {operation}, NULL, NULL, NULL, at WHERE false
