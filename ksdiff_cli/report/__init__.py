"""The HTML report: one self-contained page with the table, the pictures and the charts of a comparison.

It knows arrays and figures, not where they come from: evaluating and measuring fill a :class:`Report`.
"""

from ksdiff_cli.report.colours import rgb_bands
from ksdiff_cli.report.contents import Example, Figure, Mark, Report
from ksdiff_cli.report.page import check_report, write_report

__all__ = ["Example", "Figure", "Mark", "Report", "check_report", "rgb_bands", "write_report"]
