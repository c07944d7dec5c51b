"""Arithmetic on arrays that several tools share: rectangles, grids, filters, fills, moments, cameras.

Imports: errors. Nothing here knows files, networks or rasterio.
"""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of numbers or booleans; docstrings say its shape, unit and range."""
