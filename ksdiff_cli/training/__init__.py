"""Training: patches in, weights out; two stages that can be killed and resumed.

Runs on a machine without GDAL: imports patches.dataset, models, files, and no rasterio.
"""
