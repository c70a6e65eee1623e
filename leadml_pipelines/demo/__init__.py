"""The main job in one command: raw leads to predictions that a service can read."""
