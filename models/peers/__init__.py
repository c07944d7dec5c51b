"""Peers that KSDiff is measured against, networks of their own kinds with the same contract.

They may import what lies beside this room; nothing but the list of kinds in ``checkpoint.py`` imports them.
"""

from .plrdiff import PLRConfig, PLRDiff

__all__ = ["PLRConfig", "PLRDiff"]
