"""How good a model is, on newer rows and beside others; its gate, its card, its past."""
