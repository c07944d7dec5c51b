"""How much the prior contributes: networks with another image's z, the others' mean, none, or the truth's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.cases import Case
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import Network
from ksdiff_cli.options.measuring import Prior

if TYPE_CHECKING:
    from torch import Tensor


def name_with(name: str, prior: Prior) -> str:
    """Return a network's name in the table: ``ksdiff (z shuffled)``."""
    return name if prior == "own" else f"{name} (z {prior})"


def check_prior(network: Fuser, path: Path | None, prior: Prior) -> None:
    """Refuse a network whose z cannot be made from the truth.

    Raises:
        KsdiffError: see above; stage 1's PLFE1 alone sees the truth.
    """
    if prior == "true" and not (isinstance(network, Network) and network.needs_truth):
        raise KsdiffError(
            f"{path or 'the shipped weights'}: --prior true needs stage 1's weights (stage1.safetensors) of a network "
            "with a prior, whose encoder sees the truth"
        )


def gather_latents(
    fusers: Mapping[str, Fuser], cases: Sequence[Case], prior: Prior
) -> dict[str, list[list[list["Tensor"]]]]:
    """Return the z that every network is to use.

    Args:
        fusers: by name; only networks have a z.
        cases: all files.
        prior: ``true`` and stage 1's weights take the z of PLFE1, from the ground truth; others the network's own.
            ``shuffled`` then gives every image that of another one, half of all images away, band by band where the
            bands share a network (band b gets the other image's band b, beginning anew after its last); ``mean`` gives
            it the mean of the z of all other images of its file, which knows the file's camera and nothing of the
            image; ``zero`` replaces it by zeros.

    Returns:
        By name, file, image and anchor: (R, S, C_z), see :meth:`Network.latents`. {} for ``own``.

    Raises:
        KsdiffError: a network without prior, only one image to shuffle or in a file to take the mean of, or no ground
            truth for stage 1's weights.
    """
    if prior == "own":
        return {}
    gathered = {}
    for name, network in fusers.items():
        if isinstance(network, Network):
            files = [gather_own(name, network, case) for case in cases]
            if prior == "shuffled":
                files = _shuffled(files)
            elif prior == "mean":
                files = [_means_of_others(case, images) for case, images in zip(cases, files, strict=True)]
            elif prior == "zero":
                files = [[[z.new_zeros(z.shape) for z in image] for image in images] for images in files]
            gathered[name] = files
    return gathered


def gather_own(name: str, network: Network, case: Case) -> list[list["Tensor"]]:
    """Return the z that a network itself makes of a file's images, those of its anchors for each.

    Raises:
        KsdiffError: stage 1's weights without a ground truth.
    """
    found = []
    for image in map(case.image, range(len(case.file))):
        if network.needs_truth and image.gt is None:
            raise KsdiffError(f"{name}: stage 1's weights need the ground truth; use --protocol reduced")
        network.observe(image.tile, case.sensor.mtf_ms, case.sharpness)
        found.append(network.latents(image.tile, image.scene, case.file.ratio, image.gt))
    return found


def _shuffled(files: list[list[list["Tensor"]]]) -> list[list[list["Tensor"]]]:
    """Give every image the z of another one, of whichever file."""
    import torch

    every = [image for images in files for image in images]
    if len(every) < 2:
        raise KsdiffError("--prior shuffled needs at least two images; give more files")
    shift = len(every) // 2
    others = iter(every[shift:] + every[:shift])
    return [[[z[torch.arange(len(image[0])) % len(z)] for z in next(others)] for image in images] for images in files]


def _means_of_others(case: Case, images: list[list["Tensor"]]) -> list[list["Tensor"]]:
    """Give every image the mean z of the other images of its file, for all its anchors alike."""
    if len(images) < 2:
        raise KsdiffError(f"{case.file.path}: --prior mean needs at least two images in every file, it holds one")
    own = [sum(image[1:], image[0]) / len(image) for image in images]
    total = sum(own[1:], own[0])
    return [[(total - z) / (len(own) - 1)] for z in own]
