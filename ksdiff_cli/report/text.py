"""Names and other people's words in a page."""

import html

from ksdiff_cli.errors import printable


def escape(text: str) -> str:
    """Return text as HTML; what would turn or hide what stands beside it is spelled out."""
    return html.escape(printable(text))
