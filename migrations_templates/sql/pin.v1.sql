  IF NOT ({usual}) THEN
    settings := ARRAY[{names}];
    PERFORM {pinned};
  END IF;
