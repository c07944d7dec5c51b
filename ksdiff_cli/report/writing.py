"""Writing the page: refuse early, write beside the target, rename at the end."""

import os
from collections.abc import Iterable
from pathlib import Path

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.report.contents import Report
from ksdiff_cli.report.page import make_page
from ksdiff_cli.whole_file import is_same, write_text


def check_report(path: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a report that could not be written in the end, before any work; see :func:`check_text`.

    Raises:
        KsdiffError: it is no HTML file by its name; or see :func:`check_text`.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise KsdiffError(f"{path}: the report is a web page; let its name end in .html")
    check_text(path, overwrite, inputs)


def check_text(path: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a text file that could not be written in the end.

    Args:
        path: the file to be.
        overwrite: whether it may take another one's place.
        inputs: whose place it may not take.

    Raises:
        KsdiffError: it exists (without ``overwrite``), is one of the inputs, or its folder does not exist or cannot be
            written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise KsdiffError(f"{path}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KsdiffError(f"{path}: the folder {folder} cannot be written to; choose another")
    if path.is_dir():
        raise KsdiffError(f"{path}: is a folder; name the file to write")
    if any(is_same(path, other) for other in inputs):
        raise KsdiffError(f"{path}: is one of the inputs; choose another name")
    if path.exists() and not overwrite:
        raise KsdiffError(f"{path}: exists already; choose another name or give --overwrite")


def write_report(report: Report, path: Path, overwrite: bool = False) -> None:
    """Write a report as one HTML file that refers to nothing outside itself.

    The same report gives the same bytes.

    Raises:
        KsdiffError: see :func:`check_report`, or the disk is full.
    """
    check_report(path, overwrite)
    write_text(make_page(report), path)
