"""The algorithms: each turns its parameters into a ksdiff command."""

import html
import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from .program import ProgramError, read_settings, run

FIGURES = ("D_rho", "D_sR", "RQNR", "R_Q2n", "HQNR", "SAM", "ERGAS", "Q2n")
"""Figures that are outputs of their own, those that were measured."""


class _Algorithm(QgsProcessingAlgorithm):
    """What the algorithms share."""

    title = ""
    about = ""

    def createInstance(self) -> "_Algorithm":
        return type(self)()

    def name(self) -> str:
        return type(self).__name__.lower()

    def displayName(self) -> str:
        return self.title

    def shortHelpString(self) -> str:
        return self.about

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def file(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str:
        """Return the file of a raster layer, "" where none was chosen."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        return "" if layer is None else layer.source().partition("|")[0]

    def call(self, arguments: list[str], feedback: QgsProcessingFeedback) -> str:
        """Run ksdiff, with its notes and its progress shown."""
        feedback.pushCommandInfo("ksdiff " + " ".join(arguments))

        def progress(share: float, what: str) -> None:
            feedback.setProgress(share)
            feedback.setProgressText(what)

        try:
            return run(arguments, feedback.pushInfo, progress, feedback.isCanceled)
        except ProgramError as error:
            raise QgsProcessingException(str(error).removeprefix("Error: ")) from None

    def advanced(self, parameter: QgsProcessingParameterDefinition) -> None:
        """Add a parameter that is seldom needed."""
        flag = getattr(QgsProcessingParameterDefinition, "FlagAdvanced", None)
        if flag is not None:
            parameter.setFlags(parameter.flags() | flag)
        self.addParameter(parameter)


class Sharpen(_Algorithm):
    """Sharpen a pair, or a product."""

    title = "Sharpen (pansharpening)"
    about = (
        "Fuses a panchromatic band with multispectral bands. The output lies on PAN's grid, with the bands, data type "
        "and nodata of MS. Give PAN and MS; or, in place of both, a product: its metadata file or its archive, such as "
        "LC08_….tar or an .IMD, DIM_….XML or _MTL.txt file. A run that was stopped goes on where it was."
    )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Panchromatic band", optional=True))
        self.addParameter(QgsProcessingParameterRasterLayer("MS", "Multispectral bands", optional=True))
        self.addParameter(
            QgsProcessingParameterFile("PRODUCT", "Or a product, archive or metadata file", optional=True)
        )
        self.addParameter(QgsProcessingParameterEnum("METHOD", "Method", read_settings()["methods"], defaultValue=0))
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor (WV3, QB, L8 …)", optional=True))
        self.addParameter(QgsProcessingParameterBoolean("REGISTER", "Correct a shift between PAN and MS", False))
        self.addParameter(QgsProcessingParameterBoolean("COG", "Cloud optimized, with overviews", True))
        self.advanced(QgsProcessingParameterString("BANDS", "Bands, such as red,green,blue", optional=True))
        self.advanced(QgsProcessingParameterString("NODATA", "Value without data in PAN and MS", optional=True))
        self.advanced(
            QgsProcessingParameterNumber("MEMORY", "Memory, GB", QgsProcessingParameterNumber.Double, 2.0, minValue=0.6)
        )
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Sharpened"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        pan, ms = (self.file(parameters, name, context) for name in ("PAN", "MS"))
        product = self.parameterAsFile(parameters, "PRODUCT", context)
        if bool(product) == bool(pan or ms) or bool(pan) != bool(ms):
            raise QgsProcessingException("give PAN and MS, or a product in place of both")
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        # QGIS asked whether to replace what is there
        words = ["sharpen", *([product] if product else [pan, ms]), "-o", output, "--overwrite"]
        words += ["--method", read_settings()["methods"][self.parameterAsEnum(parameters, "METHOD", context)]]
        for name, option in (("SENSOR", "--sensor"), ("BANDS", "-b"), ("NODATA", "--src-nodata")):
            if text := self.parameterAsString(parameters, name, context):
                words += [option, text]
        words += ["--memory", f"{self.parameterAsDouble(parameters, 'MEMORY', context):g}"]
        for name, flags in (("REGISTER", ["--register"]), ("COG", ["-f", "COG"])):
            if self.parameterAsBool(parameters, name, context):
                words += flags
        self.call(words, feedback)
        return {"OUTPUT": output}


class Metrics(_Algorithm):
    """Measure a sharpened raster."""

    title = "Measure a sharpened raster"
    about = (
        "Measures how good a sharpened raster is: against a reference, or without one against its own PAN and MS. The "
        "page says of each figure what it rewards and what fools it."
    )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("FUSED", "Sharpened raster"))
        self.addParameter(QgsProcessingParameterRasterLayer("REFERENCE", "Reference", optional=True))
        self.addParameter(QgsProcessingParameterRasterLayer("PAN", "Or its panchromatic band", optional=True))
        self.addParameter(QgsProcessingParameterRasterLayer("MS", "and its multispectral bands", optional=True))
        self.addParameter(QgsProcessingParameterString("SENSOR", "Sensor (WV3, QB, L8 …)", optional=True))
        self.addParameter(QgsProcessingParameterFileDestination("HTML", "Page", "HTML files (*.html)", optional=True))
        for figure in FIGURES:
            self.addOutput(QgsProcessingOutputNumber(figure, figure))
        self.addOutput(QgsProcessingOutputString("JSON", "All figures"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        fused, reference, pan, ms = (
            self.file(parameters, name, context) for name in ("FUSED", "REFERENCE", "PAN", "MS")
        )
        words = ["metrics", fused, "--json"]
        for option, value in (("--reference", reference), ("--pan", pan), ("--ms", ms)):
            words += [option, value] if value else []
        if sensor := self.parameterAsString(parameters, "SENSOR", context):
            words += ["--sensor", sensor]
        page = self.parameterAsFileOutput(parameters, "HTML", context)
        if page:
            words += ["--report", page, "--overwrite"]
        printed = self.call(words, feedback)
        values = json.loads(printed)
        for name, value in values.items():
            if isinstance(value, int | float):
                feedback.pushInfo(f"{name}: {value:.4g}")
        figures = {name: values[name] for name in FIGURES if isinstance(values.get(name), int | float)}
        return {**figures, "JSON": printed, "HTML": page}


class Info(_Algorithm):
    """Say what a file or a product holds."""

    title = "What is in a file or product"
    about = "Size, grids and bands of a raster or a product, and how far PAN and MS are shifted against each other."

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(QgsProcessingParameterFile("FILE", "Raster, product, archive or checkpoint"))
        self.addParameter(QgsProcessingParameterFileDestination("HTML", "Page", "HTML files (*.html)", optional=True))
        self.addOutput(QgsProcessingOutputString("TEXT", "What it holds"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        text = self.call(["info", self.parameterAsFile(parameters, "FILE", context)], feedback)
        feedback.pushInfo(text)
        page = self.parameterAsFileOutput(parameters, "HTML", context)
        if page:
            Path(page).write_text(f"<pre>{html.escape(text)}</pre>\n", encoding="utf-8")
        return {"TEXT": text, "HTML": page}
