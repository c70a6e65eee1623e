"""The HTTP app: features and predictions in milliseconds."""
