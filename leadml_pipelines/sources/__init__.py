"""The customer's data: its contract, the door it enters by, and the extract bulk work reads."""
