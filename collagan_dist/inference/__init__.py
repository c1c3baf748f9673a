"""A trained model at work: evaluation, completion, labelling, export."""
