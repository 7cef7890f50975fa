  IF settings IS NOT NULL THEN
    PERFORM {restored};
  END IF;
