"""Validation: the loss on unseen patches, whether the prior is alive, pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ksdiff_cli.files.writing import write_png
from ksdiff_cli.models.contract import FusionModel, Inputs
from ksdiff_cli.models.ksdiff import KSDiff, regression_loss
from ksdiff_cli.models.peers.pixel_diffusion import PixelDiffusion
from ksdiff_cli.patches.dataset import Batch, PatchFile
from ksdiff_cli.training.log import draw_strip

IDLE = 0.005
"""If another image's z costs a smaller share of the loss, the network does not use its prior."""

_TOGETHER = 1 << 17  # pixels fused at once
_PICTURES = 3
_PIXEL_STEPS = 20  # pixel diffusion's pictures would take minutes with all of them


@torch.no_grad()
def validate(model: FusionModel, files: Sequence[PatchFile], device: torch.device) -> dict[str, float]:
    """Measure a model on unseen patches, and whether its prior is alive.

    Args:
        model: the averaged weights; left in evaluation mode.
        files: validation files; the first patches of each are used.
        device: the model's.

    Returns:
        ``valid``: L1 in standardised units; ``shuffle_cost``: share by which it grows when every entry gets the z of
        another one, from another file if there are several; ``mean_cost``: the same of the mean z of the other patches
        of its file, which knows the camera and not the image; ``z_spread``: standard deviation of the token mean of z
        between entries. None of these of a single entry, no ``mean_cost`` where a file has a single patch. Pixel
        diffusion has ``valid`` alone, its own loss at steps that stay the same. {} without files.
    """
    model.eval()
    of_files = [[batch.to(device).inputs(model) for batch in _first_patches(file)] for file in files]
    batches = [batch for one in of_files for batch in one]
    if not batches:
        return {}
    if isinstance(model, PixelDiffusion):
        random = torch.Generator().manual_seed(0)
        losses = [model.losses(inputs, random)["loss"].item() for inputs in batches]
        return {"valid": round(sum(losses) / len(losses), 6)}
    assert isinstance(model, KSDiff)
    latents = [model.latent(inputs) for inputs in batches]
    valid = _mean_loss(model, batches, latents)
    facts = {"valid": round(valid, 6)}
    known = [z for z in latents if z is not None]
    every = torch.cat(known) if known else torch.empty(0)
    if len(every) > 1:  # a single entry has no other one
        others = torch.split(every.roll(max(1, len(every) // 2), 0), [len(z) for z in known])
        facts["shuffle_cost"] = round(_mean_loss(model, batches, list(others)) / valid - 1, 5)
        if all(sum(len(inputs.P) for inputs in one) > 1 for one in of_files):
            waiting = iter(known)
            means = [z for one in of_files for z in means_of_others([(next(waiting), len(each.P)) for each in one])]
            facts["mean_cost"] = round(_mean_loss(model, batches, means) / valid - 1, 5)
        facts["z_spread"] = round(every.mean(1).std(0).mean().item(), 5)
    return facts


@torch.no_grad()
def measure_quality(model: FusionModel, files: Sequence[PatchFile], device: torch.device) -> dict[str, float]:
    """Measure what a model makes of all images of the validation files, in DN.

    Args:
        model: the averaged weights; stage 1's use the truth's z. Left in evaluation mode.
        files: validation files.
        device: the model's.

    Returns:
        ``SAM`` (degrees) and ``ERGAS``, the mean over the images for which they are defined. {} without files, and of
        pixel diffusion, whose images take minutes each.
    """
    if not files or isinstance(model, PixelDiffusion):
        return {}
    model.eval()
    values = []
    for file in files:
        together = max(1, _TOGETHER // (file.size[0] * file.size[1]))
        for start in range(0, len(file), together):
            batch = file.batch(range(start, min(start + together, len(file)))).to(device)
            assert batch.gt is not None
            values.append(torch.stack(_sam_ergas(batch.gt, _fuse(model, batch), file.ratio)).cpu().numpy())
    sam, ergas = (each[np.isfinite(each)] for each in np.concatenate(values, 1))
    means = {"SAM": sam, "ERGAS": ergas}
    return {name: round(float(found.mean()), 6) for name, found in means.items() if found.size}


def _sam_ergas(gt: Tensor, fused: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) twice -> (N,) twice; see :mod:`ksdiff_cli.metrics`, which a training machine may be without."""
    gt, fused = gt.double(), fused.double()
    norm = (gt.square().sum(1) * fused.square().sum(1)).sqrt()
    angles = torch.rad2deg(torch.acos(((gt * fused).sum(1) / norm).clamp(-1, 1)))  # NaN where a spectrum is zero
    relative = (gt - fused).square().mean((2, 3)) / gt.mean((2, 3)).square()
    return angles.flatten(1).nanmean(1), 100 / ratio * relative.mean(1).sqrt()


@torch.no_grad()
def draw_pictures(
    model: FusionModel, files: Sequence[PatchFile], device: torch.device, folder: Path, name: str
) -> None:
    """Show what the model makes of three images: PAN, MS upsampled, fused and truth, as ``folder/name.png``.

    The images are always the same ones, all of the file in the middle, so that they lie side by side in one picture.
    """
    if not files:
        return
    model.eval()
    file = files[len(files) // 2]
    rows = []
    for index in np.linspace(0, len(file) - 1, min(_PICTURES, len(file))).astype(int).tolist():
        batch = file.batch([index])
        fused = _fuse(model, batch.to(device)).cpu()
        assert batch.gt is not None
        rows.append([images[0].numpy() for images in (batch.pan, batch.ms_up, fused, batch.gt)])
    write_png(draw_strip(rows, _rgb_bands(file)), folder / f"{name}.png")


def _fuse(model: FusionModel, batch: Batch) -> Tensor:
    if isinstance(model, PixelDiffusion):
        before, model.sampling_steps = model.sampling_steps, min(_PIXEL_STEPS, model.config.steps)
        try:
            return batch.fuse(model)
        finally:
            model.sampling_steps = before
    assert isinstance(model, KSDiff)
    return batch.fuse(model, latent=model.latent(batch.inputs(model)))  # stage 1 needs the truth for its z


def _mean_loss(model: KSDiff, batches: list[Inputs], latents: Sequence[Tensor | None]) -> float:
    losses = [regression_loss(inputs, model(inputs, z)).item() for inputs, z in zip(batches, latents, strict=True)]
    return float(np.average(losses, weights=[len(inputs.M) for inputs in batches]))


def means_of_others(batches: Sequence[tuple[Tensor, int]]) -> Iterator[Tensor]:
    """Give every entry the mean z of the file's other patches, of the same band where bands share the network.

    Args:
        batches: of one file, z (R, S, C_z) and the number of patches.

    Yields:
        (R, S, C_z) for each batch.
    """
    by_patch = [z.view(patches, -1, *z.shape[1:]) for z, patches in batches]
    every = torch.cat(by_patch)
    for z in by_patch:
        yield ((every.sum(0) - z) / (len(every) - 1)).flatten(0, 1)


def _first_patches(file: PatchFile, images: int = 12, most: int = 24) -> Iterator[Batch]:
    """The first ``most`` patches of a file; a fixed set, so that values compare along a run."""
    count = min(len(file), most)
    for start in range(0, count, images):
        yield file.batch(range(start, min(start + images, count)))


def _rgb_bands(file: PatchFile) -> tuple[int, int, int]:
    """Bands called red, green and blue, else by the order of the usual products: 8 bands are WorldView's."""
    stated = file.sensor.get("bands")
    names = [str(name).lower() for name in stated][: file.bands] if isinstance(stated, list) else []
    if {"red", "green", "blue"} <= set(names):
        return names.index("red"), names.index("green"), names.index("blue")
    if file.bands < 3:
        return 0, 0, 0
    return {3: (0, 1, 2), 8: (4, 2, 1)}.get(file.bands, (2, 1, 0))
