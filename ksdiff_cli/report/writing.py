"""Writing the page: refuse early, write beside the target, rename at the end."""

from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.names import Inputs, check_place
from ksdiff_cli.files.writing import write_text
from ksdiff_cli.report.contents import Report
from ksdiff_cli.report.page import make_page


def check_report(path: Path, overwrite: bool, inputs: Inputs | None = None) -> None:
    """Refuse a report that could not be written in the end, before any work.

    Raises:
        KsdiffError: it is no HTML file by its name; or see :func:`ksdiff_cli.files.names.check_place`.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise KsdiffError(f"{path}: the report is a web page; let its name end in .html")
    check_place(path, inputs or Inputs(), overwrite)


def write_report(report: Report, path: Path, overwrite: bool = False) -> None:
    """Write a report as one HTML file that refers to nothing outside itself.

    The same report gives the same bytes.

    Raises:
        KsdiffError: see :func:`check_report`, or the disk is full.
    """
    check_report(path, overwrite)
    write_text(make_page(report), path)
