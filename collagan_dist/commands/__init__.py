"""The command line: each file parses its arguments, detects the world, and calls one function."""
