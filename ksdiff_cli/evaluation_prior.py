"""What the prior is worth: networks with another image's z, with none, or with the one made from the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation_cases import Case
from ksdiff_cli.fuser import Fuser
from ksdiff_cli.fusers import Network

if TYPE_CHECKING:
    from torch import Tensor

Prior = Literal["own", "shuffled", "zero", "true"]


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


def gather_latents(fusers: Mapping[str, Fuser], cases: Sequence[Case], prior: Prior) -> dict[str, list[list["Tensor"]]]:
    """Return the z that every network is to use.

    Args:
        fusers: by name; only networks have a z.
        cases: all files.
        prior: ``true`` and stage 1's weights take the z of PLFE1, from the ground truth; others the network's own.
            ``shuffled`` then gives every image that of another one, half of all images away, band by band where the
            bands share a network (band b gets the other image's band b, beginning anew after its last); ``zero``
            replaces it by zeros.

    Returns:
        By name, file and image: (R, S, C_z). {} for ``own``.

    Raises:
        KsdiffError: a network without prior, only one image to shuffle, or no ground truth for stage 1's weights.
    """
    import torch

    if prior == "own":
        return {}
    gathered = {}
    for name, network in fusers.items():
        if not isinstance(network, Network):
            continue
        latents: list[Tensor] = []
        for case in cases:
            for image in map(case.image, range(len(case.file))):
                if network.needs_truth and image.gt is None:
                    raise KsdiffError(f"{name}: stage 1's weights need the ground truth; use --protocol reduced")
                latents.append(network.latent(image.tile, image.scene, case.file.ratio, image.gt))
        if prior == "shuffled":
            if len(latents) < 2:
                raise KsdiffError("--prior shuffled needs at least two images; give more files")
            shift = len(latents) // 2
            others = latents[shift:] + latents[:shift]
            latents = [z[torch.arange(len(own)) % len(z)] for own, z in zip(latents, others, strict=True)]
        elif prior == "zero":
            latents = [torch.zeros_like(z) for z in latents]
        waiting = iter(latents)
        gathered[name] = [[next(waiting) for _ in range(len(case.file))] for case in cases]
    return gathered
