"""Arithmetic on arrays that whole tools share: nothing here knows files, networks or how a scene is cut.

It may import errors, grids and tiling; everything else may import it. Its modules are imported by name.
"""
