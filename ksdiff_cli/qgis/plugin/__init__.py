"""The ksdiff plugin of QGIS: a Processing provider."""

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; QGIS asks for it by this name."""
    from .provider import KsdiffPlugin

    return KsdiffPlugin()
