"""Measuring: methods compared over test files, and one raster measured against a truth or its own PAN and MS.

Imports: fusers, patches.dataset, metrics, report, output, raster.
"""
