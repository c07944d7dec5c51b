"""The prior's z, image by image, by what the images show (as in the paper's Fig. 5): a plane by PCA, and the values."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import Case
from ksdiff_cli.evaluation.prior import gather_own
from ksdiff_cli.evaluation.results import image_name
from ksdiff_cli.files.writing import atomic_write, unwritable
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.network import Network
from ksdiff_cli.numerics import Array

SUFFIXES = (".png", ".npz")
KINDS = ("water", "vegetation", "rough (towns, rocks)", "smooth (bare land)")
"""What most of an image is, where its bands are known."""
# of (green - nir) / (green + nir) and (nir - red) / (nir + red), in DN; on QuickBird's tiles water has .4 to .55 and a
# hazy town .25, forest .4 to .55
_WATER, _GREEN = 0.3, 0.3
_ROUGH = 0.1  # deviation of PAN over its mean, within blocks; there bare slopes have .1, towns .15 to .19
_BLOCK = 16  # PAN pixels
_COLOURS = ("#1f5aa0", "#2e8b3d", "#be5014", "#c9a227", "#7b3f9d", "#4f9fa8", "#8c564b", "#777777")


@dataclass(frozen=True)
class Latents:
    """z of every image."""

    images: list[str]
    kinds: list[str]
    """Of each image: one of :data:`KINDS`, or its file's name where the sensor's bands are not known."""
    z: dict[str, Array] = field(default_factory=dict)
    """By network: (images, S, C_z), the mean over the places of an image where it is made."""

    @cached_property
    def planes(self) -> dict[str, tuple[Array, Array]]:
        """By network: where each image lies on the two directions in which z varies most, and their shares of all."""
        return {name: _project(z.reshape(len(z), -1)) for name, z in self.z.items()}

    def save(self, path: Path) -> None:
        """Write the plane as a picture (.png), or everything (.npz).

        Raises:
            KsdiffError: the file cannot be written.
        """
        data = self.picture() if path.suffix.lower() == ".png" else self._arrays()
        try:
            with atomic_write(path) as growing:
                growing.write_bytes(data)
        except OSError as error:
            raise unwritable(path, error) from None

    def _arrays(self) -> bytes:
        """``images``, ``kinds``, and of each network ``NAME/z``, ``NAME/plane`` and ``NAME/share``."""
        held: dict[str, Array] = {"images": np.array(self.images), "kinds": np.array(self.kinds)}
        for name, z in self.z.items():
            held |= {f"{name}/z": z, f"{name}/plane": self.planes[name][0], f"{name}/share": self.planes[name][1]}
        out = io.BytesIO()
        np.savez_compressed(out, **held)  # type: ignore[arg-type]  # its stub takes any keyword for allow_pickle
        return out.getvalue()

    def picture(self) -> bytes:
        """Draw a panel a network as PNG: a point an image, a colour a kind."""
        from matplotlib.figure import Figure

        kinds = sorted(set(self.kinds), key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))
        figure = Figure((4.8 * len(self.z), 4.4), layout="constrained")
        for panel, name in zip(figure.subplots(1, len(self.z), squeeze=False)[0], self.z, strict=True):
            plane, shares = self.planes[name]
            for number, kind in enumerate(kinds):
                chosen = np.array([one == kind for one in self.kinds])
                label = f"{kind} ({chosen.sum()})"
                panel.scatter(*plane[chosen].T, s=18, color=_COLOURS[number % len(_COLOURS)], label=label, alpha=0.8)
            panel.set_title(name, fontsize=10)
            panel.set_xlabel(f"first direction, {shares[0]:.0%} of the variance")
            panel.set_ylabel(f"second, {shares[1]:.0%}")
            panel.grid(alpha=0.25)
        figure.axes[0].legend(fontsize=8)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
        return out.getvalue()


def collect_latents(fusers: Mapping[str, Fuser], cases: Sequence[Case]) -> Latents:
    """Make the z of every image by every network that has a prior: stage 1's from the truth, others their own.

    Raises:
        KsdiffError: no network has a prior, or stage 1's weights without a truth.
    """
    networks = {name: one for name, one in fusers.items() if isinstance(one, Network) and one.has_prior}
    if not networks:
        raise KsdiffError("--latents: none of the methods has a prior; give --checkpoint of a network that has one")
    images = [(case, case.image(index)) for case in cases for index in range(len(case.file))]
    kinds = [kind_of(image.ms, image.tile.pan[0], case.sensor.bands) or case.file.path.stem for case, image in images]
    names = [image_name(str(case.file.path), image.index) for case, image in images]
    found = {}
    for name, network in networks.items():
        made = [z for case in cases for z in gather_own(name, network, case)]
        found[name] = np.stack([np.concatenate([each.numpy() for each in z]).mean(0) for z in made])
    return Latents(names, kinds, found)


def kind_of(ms: Array, pan: Array, bands: Sequence[str]) -> str | None:
    """Say what most of an image shows, by simple thresholds on DN: enough to colour points, no land cover map.

    Args:
        ms: (bands, h, w).
        pan: (H, W).
        bands: names of the bands.

    Returns:
        One of :data:`KINDS`; None where green, red and near infrared are not among the names.
    """
    names = [name.lower() for name in bands]
    near = next((name for name in names if name.startswith("nir")), "")
    if len(names) != len(ms) or not {"green", "red", near} <= set(names):
        return None
    green, red, nir = (ms[names.index(name)].astype(np.float64) for name in ("green", "red", near))
    if np.mean((green - nir) > _WATER * np.maximum(green + nir, 1e-9)) >= 0.5:
        return KINDS[0]
    if np.mean((nir - red) > _GREEN * np.maximum(nir + red, 1e-9)) >= 0.5:
        return KINDS[1]
    height, width = (side // _BLOCK * _BLOCK for side in pan.shape)
    blocks = pan[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).astype(np.float64)
    rough = blocks.std((1, 3)) / np.maximum(blocks.mean((1, 3)), 1e-9)
    return KINDS[2] if rough.size and rough.mean() >= _ROUGH else KINDS[3]


def _project(values: Array) -> tuple[Array, Array]:
    """Find principal components: (n, channels) -> places on the first two, (n, 2), and their shares of all, (2,)."""
    from scipy.linalg import svd

    centred = values.astype(np.float64) - values.mean(0)
    u, s, _ = svd(centred, full_matrices=False)
    variance = np.pad(s**2, (0, 2))
    places = np.pad(u * s, ((0, 0), (0, 2)))[:, :2]
    return places, variance[:2] / (variance.sum() or 1)
