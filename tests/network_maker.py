"""Small networks and the images that they are tried with."""

from typing import Any

import torch

from ksdiff_cli.models.contract import Statistics

SMALL: dict[str, Any] = {
    **{"width": 16, "depths": (1, 1, 1), "encoder_width": 8},
    **{"latent": 16, "denoiser_width": 16, "denoiser_blocks": 1},
}


def batch(
    images: int = 2, bands: int = 4, height: int = 16, width: int = 16
) -> tuple[torch.Tensor, torch.Tensor, Statistics]:
    """Draw PAN (N, 1, H, W), upsampled MS (N, C, H, W) and the statistics that noise of such values has."""
    pan = 300 + 100 * torch.rand(images, 1, height, width)
    ms_up = 200 + 50 * torch.rand(images, bands, height, width)
    of_pan, of_ms = torch.ones(images, 1), torch.ones(images, bands)
    return pan, ms_up, Statistics(350 * of_pan, 29 * of_pan, 225 * of_ms, 15 * of_ms)
