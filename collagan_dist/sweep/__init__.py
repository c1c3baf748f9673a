"""Work spread over a Ray cluster. The only place that imports ray."""
