"""The peers of Table 1, one file each: networks, losses and prediction, after their published code."""
