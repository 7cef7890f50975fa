COMMENT ON TRIGGER {trigger} ON {table} IS {comment}
