"""Files and folders: which ones a name stands for, how they are written whole, and what outlives a kill.

Strangers' HDF5 files are opened here, too. Imports: errors.
"""
