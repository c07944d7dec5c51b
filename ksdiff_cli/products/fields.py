"""Metadata that is text of ``key = value`` lines.

It is read line by line: a pattern over a stranger's whole text may take time that grows with its length squared.
"""

import re
from collections.abc import Iterator

_KEY = re.compile(r"[A-Za-z0-9_]{1,200}")
_WHOLE = re.compile(r"[0-9]{1,9}")


def read_fields(text: str, end: str = "") -> Iterator[tuple[str, str]]:
    """Read the fields of a text, in order.

    Args:
        text: lines ``key = value`` or ``key = "value"``; others are passed over.
        end: what ends a value, where its format has such a sign; a line without it has no value.

    Yields:
        Keys, and values without blanks and quotes around them.
    """
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if not (sign and _KEY.fullmatch(key := key.strip())):
            continue
        if end:
            value, sign, _ = value.partition(end)
        value = value.strip().removeprefix('"').removesuffix('"')
        if sign and '"' not in value:
            yield key, value


def first_fields(text: str, end: str = "") -> dict[str, str]:
    """Return the first value of every key, see :func:`read_fields`."""
    found: dict[str, str] = {}
    for key, value in read_fields(text, end):
        found.setdefault(key, value)
    return found


def whole_number(text: str) -> int | None:
    """Return a whole number that metadata states, or None where it is none: signs, thousands of digits, ``²``."""
    return int(text) if _WHOLE.fullmatch(text) else None
