SELECT {text}
      INTO images
      FROM {tables}
     WHERE {one_only}