"""Simulated scenes: fields, spectra, land and what stands on it, the camera, and the files."""
