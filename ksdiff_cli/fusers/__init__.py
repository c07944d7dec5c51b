"""Fusers, which sharpen a window: the network or a classical method, behind one interface (``base``).

Where a network runs and where a scene's kernels are made belongs here, too.
Imports: raster, classical, numerics, models.
"""
