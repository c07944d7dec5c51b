"""The provider, and the plugin that registers it."""

from pathlib import Path

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import Info, Metrics, Sharpen


class KsdiffProvider(QgsProcessingProvider):
    """ksdiff's algorithms, as ``ksdiff:sharpen`` and so on."""

    def id(self) -> str:
        return "ksdiff"

    def name(self) -> str:
        return "ksdiff"

    def longName(self) -> str:
        return "ksdiff: pansharpening"

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def loadAlgorithms(self) -> None:
        for algorithm in (Sharpen, Metrics, Info):
            self.addAlgorithm(algorithm())


class KsdiffPlugin:
    """What QGIS loads and unloads."""

    def __init__(self) -> None:
        """Register nothing yet."""
        self.provider: KsdiffProvider | None = None

    def initProcessing(self) -> None:
        """Register the provider; qgis_process asks for this alone."""
        self.provider = KsdiffProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Do the same with a window."""
        self.initProcessing()

    def unload(self) -> None:
        """Take the provider away."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
