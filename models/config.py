"""The whole configuration of a KSDiff network; it travels in every checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, ClassVar, Self

from .contract import Config, ModelError

ENCODERS = ("pyramid", "entangled")
STRUCTURES = ("tucker", "mlp")
LATENT_NORMS = ("images", "layer")
_BEFORE = {"encoder_norm": True, "moments": False, "modulate_output": False, "spread_beta": False}
"""What networks were that say nothing about it."""


@dataclass(frozen=True)
class ModelConfig(Config):
    """Widths, ranks and schedule; the paper leaves most of them to its unpublished supplement."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **Config.bounds,
        **dict.fromkeys(("width", "band_width", "latent", "encoder_width", "denoiser_width", "tokens"), (1, 4096)),
        **dict.fromkeys(("depths", "trunk_blocks", "band_blocks", "rank", "denoiser_blocks"), (1, 64)),
        **dict.fromkeys(("kernel", "expansion", "patch"), (1, 32)),
        "encoder_stages": (1, 8),
        "features": (4, 512),
        "tile": (32, 4096),
        "peak": (1e-6, 1e9),
        **dict.fromkeys(("steps", "sampling_steps"), (1, 10_000)),
        **dict.fromkeys(("beta_start", "beta_end"), (1e-6, 0.9999)),
        "eta": (0, 1),
    }
    """See :attr:`Config.bounds`; far above what is used, low enough that a network is laid out in seconds."""
    backbone: str = "pannextu"
    """The regression network, a name in :data:`ksdiff_cli.models.backbones.BACKBONES`; the published ones keep their
    published sizes: ``width`` is ``pannextu``'s and ``unrolled``'s, ``depths``, ``kernel`` and ``expansion`` are
    ``pannextu``'s alone."""
    width: int = 48
    """Channels at 1/4 of the PAN resolution: of PanNeXt-U, with twice that at 1/8, or of ``unrolled``'s trunk."""
    depths: tuple[int, int, int] = (2, 2, 2)
    """ConvNeXt blocks on the way down, at the bottom, on the way up."""
    kernel: int = 7
    """Side of the depthwise kernels, in cells of 1/4 resolution."""
    expansion: int = 3
    """Hidden channels of a block over its channels."""
    band_width: int = 48
    """Channels of a band's branch, at 1/4 of the PAN resolution, in the backbone ``unrolled``."""
    trunk_blocks: int = 1
    """Residual blocks of the trunk, in the backbone ``unrolled``."""
    band_blocks: int = 2
    """Residual blocks of a band's branch, in the backbone ``unrolled``."""
    features: int | None = None
    """Channels of the published backbones whose width is an option: CTINN's n, HFIN's c; None takes theirs."""
    tile: int = 64
    """Side of the pieces, PAN pixels, in which backbones that see an image as a whole (mmnet, dcfnet, hfin) take larger
    ones; best that of the training patches, as in published results."""
    seamless: bool = False
    """Whether CTINN and DCFNet take a form that hangs less on where an image is cut than the published one does."""
    patch: int = 4
    """Side of the pixel-unshuffled cell, in PAN pixels; loses nothing, and sets the speed."""
    prior: bool = True
    """Whether the kernels are modulated (KSDiff) or fixed (the plain network); False is an ablation of Table 4."""
    encoder: str = "pyramid"
    """``pyramid``: PLFE; ``entangled``: plain concatenation of the inputs, an ablation of Table 4."""
    structure: str = "tucker"
    """``tucker``: the kernel generator of eq. 3; ``mlp``: z straight to the full kernel, an ablation of Table 4."""
    rank: tuple[int, int, int, int] = (4, 4, 2, 2)
    """Tucker rank (C_in, C_out, k_h, k_w) of the modulation, eq. 3; best of Table 6; cut to the mode's size."""
    tokens: int = 16
    """S, tokens of the latent z; a square number."""
    latent: int = 64
    """C_z, channels of a token."""
    encoder_width: int = 32
    """d, channels of the encoders PLFE1 and PLFE2."""
    peak: float | None = None
    """DN that are 1 in the network's units: 2047 or 1023 in the literature, whose inputs and losses are DN over it;
    None: every image is standardised by the mean and standard deviation of its scene."""
    latent_norm: str = "images"
    """``images``: z is standardised over images and bounded, so that it differs between them by construction;
    ``layer``: a layer norm over its channels, with a learned scale, as networks of this kind have it."""
    details: bool = True
    """Whether the encoders also see PAN's detail and what upsampled MS lacks of the truth, beside PAN and the truth."""
    encoder_norm: bool = False
    """Whether the encoders' stems end in a layer norm, which hides how strong an image's missing detail is."""
    moments: bool = True
    """Whether the encoders also see :mod:`second-order statistics <ksdiff_cli.models.encoder>`; PLFE only."""
    modulate_output: bool = True
    """Whether z also reaches PanNeXt-U's output: the head's bias, i.e. the injection gain, and the full-resolution
    filters. These three wake the prior; figures stand in the CHANGELOG."""
    encoder_stages: int = 2
    """N, pyramid stages of the encoders."""
    denoiser_width: int = 192
    """Hidden channels of the denoiser."""
    denoiser_blocks: int = 3
    """Residual blocks of the denoiser."""
    steps: int = 4
    """T, diffusion steps."""
    beta_start: float = 0.1
    """beta_1 of the schedule beta_t = linspace(sqrt(beta_1), sqrt(beta_T), T)^2."""
    beta_end: float = 0.99
    """beta_T."""
    spread_beta: bool = True
    """Whether that is the schedule of T = 4, spread over T steps so that the last one is as noisy whatever T is."""
    sampling_steps: int | None = None
    """Steps walked when sampling, evenly spaced among T (DDIM); None: all."""
    eta: float = 0.0
    """Noise of sampling: 0 walks deterministically (DDIM), 1 with the variance of eq. 7 (DDPM)."""

    def __post_init__(self) -> None:
        """Refuse values no network can be built from."""
        super().__post_init__()
        if round(self.tokens**0.5) ** 2 != self.tokens:
            raise ModelError(f"config: tokens must be a square number, not {self.tokens}")
        if self.tile % 16:
            raise ModelError(f"config: tile must be a multiple of 16, not {self.tile}")
        if (self.features or 4) % 4:
            raise ModelError(f"config: features must be a multiple of 4, not {self.features}")
        if self.kernel % 2 == 0:
            raise ModelError(f"config: kernel must be odd, not {self.kernel}")
        if (self.sampling_steps or 1) > self.steps:
            raise ModelError(f"config: sampling_steps must be 1 to {self.steps}, not {self.sampling_steps}")
        if self.encoder not in ENCODERS:
            raise ModelError(f"config: no encoder is called {shown(self.encoder)}; known: {' '.join(ENCODERS)}")
        if self.latent_norm not in LATENT_NORMS:
            raise ModelError(
                f"config: no latent_norm is called {shown(self.latent_norm)}; known: {' '.join(LATENT_NORMS)}"
            )
        if self.structure not in STRUCTURES:
            raise ModelError(f"config: no structure is called {shown(self.structure)}; known: {' '.join(STRUCTURES)}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """See :meth:`Config.from_dict`; values of networks older than a setting are what they were then."""
        return super().from_dict({**_BEFORE, **values})
