"""The online store: packed feature values and model pointers in Redis."""
