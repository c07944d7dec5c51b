"""Writing rasters: GeoTIFF, COG, VRT with tiles; data types, nodata, creation options, metadata and statistics.

Every output grows beside its place and appears whole. Imports: raster, numerics, files.
"""
