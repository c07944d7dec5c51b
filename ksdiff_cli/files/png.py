"""PNG files with nothing but NumPy and zlib: they are written on machines without GDAL too."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.files.writing import atomic_write

Array = NDArray[Any]

_ROWS = 64  # filtered at once, which bounds memory


def write_png(image: Array, path: Path) -> None:
    """Write (H, W, 3) uint8 as PNG, beside the target first, then renamed; its folder is made.

    Raises:
        OSError: it cannot be written; nothing of it remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as growing:
        growing.write_bytes(encode_png(image))


def encode_png(image: Array) -> bytes:
    """Return a PNG of (H, W, 3) uint8."""
    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    pack, data = zlib.compressobj(6), bytearray()
    above = np.zeros((1, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        rows = image[top : top + _ROWS]
        data += pack.compress(_filter(rows, np.concatenate([above, rows[:-1]])).tobytes())
        above = rows[-1:]
    data += pack.flush()
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", bytes(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _filter(rows: Array, above: Array) -> Array:
    """Write each row as it is or as differences, whichever looks smallest: (rows, 1 + 3 W), the filter's number first.

    The choice is the one that the PNG specification recommends: the least sum of absolute differences.
    """
    left = np.zeros_like(rows)
    left[:, 1:] = rows[:, :-1]
    tried = np.stack([rows, rows - left, rows - above])  # none, sub, up: modulo 256
    cost = np.abs(tried.view(np.int8).astype(np.int16)).sum((2, 3), dtype=np.int64)
    best = cost.argmin(0).astype(np.uint8)
    chosen = tried[best, np.arange(len(rows))].reshape(len(rows), -1)
    return np.concatenate([best[:, None], chosen], 1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
