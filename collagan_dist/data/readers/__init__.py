"""Readers of published data sets: each turns a recipe into a list of samples."""
