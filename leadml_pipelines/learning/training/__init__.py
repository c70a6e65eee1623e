"""From a training set to a fitted model: search, blend, calibration, threshold, fit."""
