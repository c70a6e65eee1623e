"""Labels, model declarations, training, evaluation and the registry."""
