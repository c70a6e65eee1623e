"""The relationship graph: kept in step with the tables, read back, measured as of any moment."""
