"""One file per pipeline stage, from simulated anatomy to a released model."""
