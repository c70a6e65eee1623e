"""LeadML: features, models and predictions for insurance lead generation."""

import os

# XGBoost's threads spin while they wait for each other, which on shared cores made a fit five
# times slower. OpenMP reads this once, when the first library that uses it is loaded (often
# scikit-learn), so it is set here, before any of them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
