"""The paper again: its models trained, its tables and figures beside ours."""
