"""Networks, step and predictor of each kind of model."""
