"""Sharpening whole scenes: cut into windows, made here or by workers, put together without seams, resumed after a kill.

Also many scenes, arrays, fine-tuning on a scene, uncertainty and quicklooks. Imports: everything below the Python API.
"""
