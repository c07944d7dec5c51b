"""Reading scenes: PAN and MS as one pair, window by window on the PAN grid, whatever their files are like.

Here windows are opened, cut, warped, filled and registered, and a scene's cameras are found.
Imports: numerics, files, sensors.
"""
