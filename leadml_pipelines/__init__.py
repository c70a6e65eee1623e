"""LeadML: features, models and predictions for insurance lead generation."""
