"""Experiments: a folder for each, with its scripts, its results.csv and its README."""
