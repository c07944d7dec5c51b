"""Patch files as tensors: ksdiff's own and PanCollection's, read image by image; data stay in their own unit (DN).

It runs on a machine with torch, h5py and numpy alone: no rasterio here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.files.content import digest
from ksdiff_cli.files.hdf5 import find_array, open_h5, read_attributes, reading
from ksdiff_cli.models.contract import FusionModel, Inputs, Statistics
from ksdiff_cli.models.observation import AxisMap, Observed, fit_cameras
from ksdiff_cli.numerics import Array
from ksdiff_cli.sensors import Sensor, find_in_name

if TYPE_CHECKING:
    from ksdiff_cli.numerics.grids import GridMap


_NAMES = {
    "pan": ("pan", "I_PAN"),
    "ms": ("ms", "I_MS_LR"),
    "lms": ("lms", "I_MS"),
    "gt": ("gt", "I_GT"),
}
"""Keys of patch files, and what PanCollection and the reference toolbox call them in MATLAB."""
_NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_LARGE = 1 << 30  # bytes of an array that want proof, as of HDF5 files
_COMPRESSED = 1000  # times that an array may be larger than the file


def read_mat(path: Path) -> dict[str, Array]:
    """Read the images of a MATLAB file (version 5, or 7.3, which is HDF5).

    Returns:
        ``pan`` (N, 1, H, W) and ``ms``, ``lms``, ``gt`` (N, C, ·, ·), as far as they are there.

    Raises:
        KsdiffError: no such file, no MATLAB file, or arrays of another kind than images.
    """
    if not path.is_file():
        raise KsdiffError(f"{path}: no such file; check the path")
    found = _read_hdf5(path) if h5py.is_hdf5(path) else _read_version_5(path)
    return {key: _to_batch(path, key, array) for key, array in found.items()}


def _read_hdf5(path: Path) -> dict[str, Array]:
    """Read version 7.3, which stores MATLAB's axes in reverse."""
    found = {}
    with open_h5(path, "is no MATLAB file, or is damaged") as file, reading(path):
        for key, names in _NAMES.items():
            arrays = [array for name in names if (array := find_array(file, name)) is not None]
            if arrays:
                found[key] = np.asarray(arrays[0][()]).T
    return found


def _read_version_5(path: Path) -> dict[str, Array]:
    from scipy.io import loadmat, whosmat

    most = max(_LARGE, _COMPRESSED * path.stat().st_size)
    try:
        held = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        chosen = {key: name for key, names in _NAMES.items() for name in names[::-1] if name in held}
        for name in chosen.values():
            shape, kind = held[name]
            if kind not in _NUMBERS:
                raise KsdiffError(f"{path}: its {name} is {kind}, not an array of numbers")
            if 8 * prod(shape) > most:
                raise KsdiffError(f"{path}: its {name} is declared with {prod(shape):.3g} values, more than it holds")
        loaded = loadmat(path, variable_names=list(chosen.values()))
        return {key: np.asarray(loaded[name]) for key, name in chosen.items()}
    except KsdiffError:
        raise
    except Exception as error:  # scipy names no class for a damaged file
        why = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise KsdiffError(f"{path}: cannot be read as a MATLAB file ({why}); fetch it again") from None


def _to_batch(path: Path, key: str, array: Array) -> Array:
    """Bring an image or several to (N, C, H, W); of PAN MATLAB drops the one channel."""
    if array.dtype.kind not in "iuf":
        raise KsdiffError(f"{path}: its {key} holds {array.dtype}, not real numbers")
    if key == "pan" and (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] != 1)):
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4:
        raise KsdiffError(f"{path}: its {key} has {array.ndim} axes; needed: height, width, bands")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


Geometry = Literal["area", "toolbox"]

_IMAGES = ("pan", "ms", "lms", "gt")
_SCENES = ("scene", "scene_pan_mean", "scene_pan_std", "scene_ms_mean", "scene_ms_std")
_CACHE_BYTES = 1 << 30  # a smaller file is kept in memory, uncompressed
_SHARPNESS_IMAGES = 32  # that show together how sharp the truth is against PAN
_CHUNK_BYTES = 1 << 26  # read at once in a pass over a whole file


@dataclass(frozen=True)
class Batch:
    """Images of one file, in DN."""

    pan: Tensor
    """(N, 1, H, W) float32."""
    ms_up: Tensor
    """(N, C, H, W) float32; ``lms`` in the file."""
    gt: Tensor | None
    """(N, C, H, W) float32; None where the file has no ground truth (full resolution)."""
    statistics: Statistics
    """Of the scenes that the images come from."""
    ratio: int
    """PAN pixels per MS pixel along a side."""
    observed: Observed
    """MS as it is in the file, with its place."""
    gain: float
    """MTF at the MS Nyquist frequency that MS was made with, or is believed to have."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on ``device``; pinned images are copied while the GPU computes."""
        moved = self.each(lambda images: images.to(device, non_blocking=True))
        return replace(moved, statistics=self.statistics.to(device))

    def pinned(self) -> "Batch":
        """Return the same batch with its images in pinned memory, from where a GPU fetches them by itself."""
        return self.each(torch.Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with all its images changed alike."""
        observed = replace(self.observed, ms=change(self.observed.ms))
        gt = None if self.gt is None else change(self.gt)
        return replace(self, pan=change(self.pan), ms_up=change(self.ms_up), gt=gt, observed=observed)

    def inputs(self, model: FusionModel) -> Inputs:
        """Return what a network's stages of training work on."""
        if not model.observes:
            return model.prepare(self.pan, self.ms_up, self.statistics, self.ratio, self.gt)
        return model.prepare(self.pan, self.observed, self.seen, self.ratio, self.gt)

    def fuse(self, model: FusionModel, **more: Any) -> Tensor:
        """Sharpen the images; see :meth:`FusionModel.fuse`."""
        if not model.observes:
            return model.fuse(self.pan, self.ms_up, self.statistics, self.ratio, **more)
        return model.fuse(self.pan, self.observed, self.seen, self.ratio, **more)

    @property
    def seen(self) -> Statistics:
        """The statistics with the cameras that the images were seen by."""
        return replace(self.statistics, cameras=fit_cameras(self.pan, self.observed, self.gain))


class PatchFile:
    """One HDF5 file with ``pan``, ``ms`` and perhaps ``gt`` and ``lms``, (N, channels, H, W), any numeric type.

    A file of up to 1 GB is kept in memory once its images are asked for; from a larger one images are read as needed.
    MATLAB files of test images (``.mat``) are read too, whole.
    """

    def __init__(self, path: Path | str, cache_bytes: int = _CACHE_BYTES) -> None:
        """Open the file and check its layout; no pixel is read.

        Args:
            path: the file.
            cache_bytes: a file of at most this size is kept in memory once its images are asked for.

        Raises:
            KsdiffError: no such file, not HDF5, missing keys, or arrays that do not fit each other; see also
                :func:`ksdiff_cli.files.hdf5.find_array`.
        """
        self.path = Path(path)
        matlab = self.path.suffix.lower() == ".mat"
        complaint = "is not an HDF5 file, or is damaged; prepare-data makes such files"
        self._file = None if matlab else open_h5(self.path, complaint)
        self._arrays: dict[str, Any] = read_mat(self.path) if matlab else {}
        self._cache: dict[str, Array] = {}
        self._cache_bytes = cache_bytes
        self._reading = Lock()
        try:
            self._check()
        except KsdiffError:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._arrays["pan"].shape[0])

    def close(self) -> None:
        """Close the file and forget what was cached."""
        self._cache.clear()
        if self._file is not None:
            self._file.close()

    def stored(self) -> dict[str, Any]:
        """Return the images' arrays as they are stored, by key: (N, channels, H, W) of any numeric type."""
        return {key: self._arrays[key] for key in _IMAGES if key in self._arrays}

    @property
    def fits_memory(self) -> bool:
        """Whether the images are kept in memory once they are asked for."""
        return bool(sum(array.nbytes for array in self.stored().values()) <= self._cache_bytes)

    def read_from(self, copy: Path) -> None:
        """Read the images from a copy of this file from now on; see :mod:`ksdiff_cli.patches.compact`.

        Raises:
            KsdiffError: the copy cannot be read, or holds other arrays.
        """
        source = open_h5(copy, "is damaged; remove it, and it is made anew")
        found = {key: find_array(source, key) for key in self.stored()}
        for key, array in self.stored().items():
            other = found[key]
            if other is None or other.shape != array.shape:
                raise KsdiffError(f"{copy}: is no copy of {self.path}; remove it, and it is made anew")
        self._arrays |= found
        self._cache.clear()

    @property
    def bands(self) -> int:
        """Number of MS bands."""
        return int(self._arrays["ms"].shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of PAN, lms and gt."""
        return int(self._arrays["pan"].shape[2]), int(self._arrays["pan"].shape[3])

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel along a side."""
        return self.size[0] // int(self._arrays["ms"].shape[2])

    @property
    def has_gt(self) -> bool:
        """Whether the file holds the ground truth, i.e. is at reduced resolution."""
        return "gt" in self._arrays

    @property
    def geometry(self) -> Geometry:
        """How MS lies on PAN: by pixel areas (ksdiff's files) or on pixels 4k+2 (PanCollection's, which do not say)."""
        return "area" if self._text("geometry") == "area" else "toolbox"

    @property
    def grid(self) -> "GridMap":
        """The map from PAN's pixels to those of MS."""
        from ksdiff_cli.numerics.grids import Axis, GridMap, corner_aligned

        if self.geometry == "area":
            return corner_aligned(self.ratio)
        axis = Axis(1 / self.ratio, -(self.ratio // 2) / self.ratio)
        return GridMap(axis, axis)

    def sharpness(self, gains: Sequence[float]) -> float:
        """Return how sharp the truth is relative to PAN, by what the images show together; 0 at full resolution.

        Args:
            gains: MTF gains that MS was made with.
        """
        if not self.has_gt:
            return 0.0
        from ksdiff_cli.numerics.camera import View, implied_sharpness

        chosen = np.linspace(0, len(self) - 1, min(_SHARPNESS_IMAGES, len(self))).round().astype(int).tolist()
        pan, ms = self._read("pan", chosen), self._read("ms", chosen)
        everywhere = np.ones(pan.shape[2:], bool), np.ones(ms.shape[2:], bool)
        views = [View(p[0], everywhere[0], m, everywhere[1], self.grid) for p, m in zip(pan, ms, strict=True)]
        return implied_sharpness(views, self.bands, gains)

    @cached_property
    def _own_sharpness(self) -> float:
        return self.sharpness(self._gains)

    @property
    def _gains(self) -> Sequence[float]:
        return self.sensor.get("mtf_ms") or (0.3,)

    @property
    def sensor(self) -> dict[str, Any]:
        """The sensor's values as the file states them, else those of the one it is :attr:`named_after`, else {}."""
        named = self.named_after
        return self._stated if named is None else json.loads(json.dumps(named.to_dict()))

    @property
    def named_after(self) -> Sensor | None:
        """The sensor of a file that states none and is named after one: PanCollection's ``train_wv3.h5``."""
        return None if self._stated else find_in_name(self.path.stem, self.bands)

    @property
    def _stated(self) -> dict[str, Any]:
        text = self._text("sensor")
        if not text.startswith("{"):
            return {"name": text} if text else {}
        try:
            sensor: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError):
            raise KsdiffError(f"{self.path}: the sensor that it states is damaged JSON; name a --sensor") from None
        return sensor

    @cached_property
    def identity(self) -> str:
        """What tells these images from others, wherever the file lies: sixteen digits, see :func:`files.digest`."""
        return digest(self.path)

    def image(self, index: int) -> dict[str, Array]:
        """Return one image as float32 DN: pan (1, H, W), lms (C, H, W), ms (C, h, w) and, if there, gt (C, H, W).

        Raises:
            KsdiffError: values that cannot be read, or are no numbers.
        """
        keys = ("pan", "ms", "lms", "gt") if self.has_gt else ("pan", "ms", "lms")
        return {key: self._finite(key, index) for key in keys}

    def largest(self, key: str) -> float:
        """Return the largest value of ``pan``, ``ms`` or ``gt`` over all images, in one streamed pass.

        Raises:
            KsdiffError: values that cannot be read, or are no numbers.
        """
        return max(float(self._finite(key, index).max()) for index in range(len(self)))

    def statistics(self, indices: Sequence[int]) -> Statistics:
        """Return the statistics of the images' scenes, N = len(indices).

        A file that states none (PanCollection's) counts as one scene, gathered once in a pass over ``ms`` and ``pan``.
        """
        pan_mean, pan_std, ms_mean, ms_std = self._scene_statistics
        scenes = self._scenes[np.asarray(indices, np.int64)]
        return Statistics(
            torch.from_numpy(pan_mean[scenes]),
            torch.from_numpy(pan_std[scenes]),
            torch.from_numpy(ms_mean[scenes]),
            torch.from_numpy(ms_std[scenes]),
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return images as tensors, in the order asked for."""
        pan, ms_up = (torch.from_numpy(self._read(key, indices)) for key in ("pan", "lms"))
        gt = torch.from_numpy(self._read("gt", indices)) if self.has_gt else None
        ms = torch.from_numpy(self._read("ms", indices))
        rows, cols = (AxisMap(axis.scale, axis.offset) for axis in vars(self.grid).values())
        observed = Observed(ms, None, rows, cols, self._own_sharpness)
        return Batch(pan, ms_up, gt, self.statistics(indices), self.ratio, observed, float(np.mean(self._gains)))

    def _text(self, attribute: str) -> str:
        value = "" if self._file is None else read_attributes(self._file, self.path).get(attribute, "")
        return value if isinstance(value, str) else ""

    def _check(self) -> None:
        if self._file is not None:
            found = {key: find_array(self._file, key) for key in (*_IMAGES, *_SCENES)}
            self._arrays = {key: array for key, array in found.items() if array is not None}
        if missing := [key for key in ("pan", "ms") if key not in self._arrays]:
            raise KsdiffError(
                f"{self.path}: has no {' and no '.join(missing)}; "
                "patch files hold pan, ms, lms and gt (PanCollection's keys)"
            )
        shapes = {key: tuple(self._arrays[key].shape) for key in _IMAGES if key in self._arrays}
        if any(len(shape) != 4 for shape in shapes.values()) or shapes["pan"][1] != 1 or 0 in shapes["pan"]:
            raise self._misfit(shapes)
        (count, bands, h, w), (H, W) = shapes["ms"], shapes["pan"][2:]
        ratio = H // max(1, h)
        fitting = shapes["pan"][0] == count and ratio >= 2 and (h * ratio, w * ratio) == (H, W)
        if not fitting or any(shapes.get(key, (count, bands, H, W)) != (count, bands, H, W) for key in ("lms", "gt")):
            raise self._misfit(shapes)
        if "scene" in self._arrays and "scene_ms_mean" in self._arrays:
            scenes = len(self._arrays["scene_ms_mean"])
            wanted = dict(zip(_SCENES, ((count,), *((scenes,),) * 2, *((scenes, bands),) * 2), strict=True))
            shapes = {key: tuple(self._arrays[key].shape) for key in _SCENES if key in self._arrays}
            if shapes != wanted:
                raise self._misfit(shapes)

    def _misfit(self, shapes: dict[str, tuple[int, ...]]) -> KsdiffError:
        found = ", ".join(f"{key} {' x '.join(map(str, shape))}" for key, shape in shapes.items())
        return KsdiffError(
            f"{self.path}: its arrays do not fit each other ({found}); "
            "needed: pan N x 1 x H x W, gt and lms N x C x H x W, ms N x C x H/ratio x W/ratio"
        )

    def _read(self, key: str, indices: Sequence[int]) -> Array:
        """Read images, float32 (N, channels, height, width).

        Raises:
            KsdiffError: they cannot be read.
        """
        if key == "lms" and "lms" not in self._arrays:
            return np.stack([self._upsample(image) for image in self._read("ms", indices)])
        with reading(self.path):
            source = self._cached(key)
            out = np.empty((len(indices), *source.shape[1:]), np.float32)
            with np.errstate(over="ignore"):
                for place, index in zip(out, indices, strict=True):
                    place[...] = source[index]
        return out

    def _finite(self, key: str, index: int) -> Array:
        """Read one image, float32 (channels, height, width), to be measured: a loss says by itself what is wrong."""
        image: Array = self._read(key, [index])[0]
        if not np.isfinite(image).all():
            raise KsdiffError(
                f"{self.path}: {key} of image {index} holds values that are no numbers; leave the image out, or make "
                "the file anew with prepare-data"
            )
        return image

    def _cached(self, key: str) -> Any:
        with self._reading:  # batches are made by several threads
            if key not in self._cache:
                dataset = self._arrays[key]
                if not self.fits_memory:
                    return dataset
                self._cache[key] = dataset[:]
            return self._cache[key]

    def _upsample(self, ms: Array) -> Array:
        # scipy lies behind both; a training machine whose files hold lms does without
        if self.geometry == "toolbox":
            from ksdiff_cli.numerics.toolbox import interp23tap

            return interp23tap(ms, self.ratio).astype(np.float32)
        from ksdiff_cli.numerics.grids import corner_aligned, upsample

        return upsample(ms, corner_aligned(self.ratio), self.size)

    @cached_property
    def _scenes(self) -> Array:
        """(N,) index of each image's scene."""
        if "scene" in self._arrays and "scene_ms_mean" in self._arrays:
            with reading(self.path):
                scenes = np.asarray(self._arrays["scene"][:], np.int64)
            if scenes.min() < 0 or scenes.max() >= len(self._arrays["scene_ms_mean"]):
                raise KsdiffError(f"{self.path}: some images are of scenes that it does not state; make it anew")
            return scenes
        return np.zeros(len(self), np.int64)

    @cached_property
    def _scene_statistics(self) -> tuple[Array, Array, Array, Array]:
        """Mean and deviation of PAN (K, 1) twice and of MS (K, C) twice, float32; K scenes."""
        if "scene" in self._arrays and "scene_ms_mean" in self._arrays:
            with reading(self.path):
                values = [np.asarray(self._arrays[name][:], np.float32) for name in _SCENES[1:]]
            if not all(np.isfinite(value).all() for value in values):
                raise KsdiffError(f"{self.path}: its scenes' statistics are no numbers; make it anew")
        else:
            values = [x.astype(np.float32)[None] for key in ("pan", "ms") for x in self._gather(key)]
        pan_mean, pan_std, ms_mean, ms_std = (value.reshape(len(value), -1) for value in values)
        return pan_mean, pan_std, ms_mean, ms_std

    def _gather(self, key: str) -> tuple[Array, Array]:
        """Mean and standard deviation of every channel over the whole file, in one pass."""
        dataset = self._arrays[key]
        images = max(1, _CHUNK_BYTES // (dataset.nbytes // len(dataset) + 1))
        total, squares = np.zeros(dataset.shape[1]), np.zeros(dataset.shape[1])
        for start in range(0, len(dataset), images):
            values = self._read(key, range(start, min(start + images, len(dataset)))).astype(np.float64)
            total += values.sum((0, 2, 3))
            squares += np.einsum("nchw,nchw->c", values, values)
        count = len(dataset) * dataset.shape[2] * dataset.shape[3]
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
