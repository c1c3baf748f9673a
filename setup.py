"""The list of packages, which pyproject.toml can search for or write out, but not both. All else is there."""

from __future__ import annotations

from setuptools import find_namespace_packages, setup

# The top-level folders of recipes, machines and batch scripts are packages of the wheel, under these names.
PROJECT = [f"collagan_dist.project.{folder}" for folder in ("shards", "cluster", "slurm")]

setup(packages=[*find_namespace_packages(include=["collagan_dist*"]), *PROJECT])
