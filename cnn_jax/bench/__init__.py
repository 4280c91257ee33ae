"""What the hardware gives and what we take of it: times of rivals, paired, with intervals.

The modules that describe what is measured (`cases`, `architecture`, `results`) need only the
standard library, so that a second process can time another library without importing jax.
"""
