"""PNG files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ksdiff_cli.files.writing import atomic_write


def write_png(image: Any, path: Path) -> None:
    """Write an array, (H, W, 3) uint8, as PNG, whole or not at all; its folder is made.

    Raises:
        OSError: it cannot be written; nothing of it remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as growing:
        growing.write_bytes(encode_png(image))


def encode_png(image: Any, palette: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    """Return a PNG of an array.

    Args:
        image: (H, W) or (H, W, 2 to 4) uint8: grey or colour, perhaps with transparency; or numbers of a palette.
        palette: red, green, blue and opacity by number.
    """
    picture, more = Image.fromarray(image), dict[str, Any]()
    if palette:
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([level for colour in palette for level in colour[:3]])
        more["transparency"] = bytes(colour[3] for colour in palette)
    with BytesIO() as file:
        picture.save(file, "PNG", **more)
        return file.getvalue()
