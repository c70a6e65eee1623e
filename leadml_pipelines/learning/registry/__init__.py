"""Models on record: signed files, rows in PostgreSQL, aliases and every change of them."""
