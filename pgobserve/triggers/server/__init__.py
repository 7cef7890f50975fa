"""Reads and writes the database: catalog, drift, outbox storage, owners of the schema."""
