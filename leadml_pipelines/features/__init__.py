"""Features: defined once, computed in bulk and for one lead, with the same value bit for bit."""
