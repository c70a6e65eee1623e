"""What is materialized, a module per group of the asset graph."""
