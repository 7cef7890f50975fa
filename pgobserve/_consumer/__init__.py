"""What the consumers' base classes are made of."""
