"""The whole configuration of a KSDiff network; it travels in every checkpoint."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from .contract import ModelError


@dataclass(frozen=True)
class ModelConfig:
    """Widths, ranks and schedule; the paper leaves most of them to its unpublished supplement."""

    bands: int | None = None
    """MS bands the network sees at once; None: one run a band with shared weights, so any number of bands."""
    width: int = 48
    """Channels of PanNeXt-U at 1/4 of the PAN resolution; twice that at 1/8."""
    depths: tuple[int, int, int] = (2, 2, 2)
    """ConvNeXt blocks on the way down, at the bottom, on the way up."""
    kernel: int = 7
    """Side of the depthwise kernels, in cells of 1/4 resolution."""
    expansion: int = 3
    """Hidden channels of a block over its channels."""
    patch: int = 4
    """Side of the pixel-unshuffled cell, in PAN pixels; loses nothing, and sets the speed."""
    prior: bool = True
    """Whether the kernels are modulated (KSDiff) or fixed (plain PanNeXt-U)."""
    rank: tuple[int, int, int, int] = (4, 4, 2, 2)
    """Tucker rank (C_in, C_out, k_h, k_w) of the modulation, eq. 3; best of Table 6; cut to the mode's size."""
    tokens: int = 16
    """S, tokens of the latent z; a square number."""
    latent: int = 64
    """C_z, channels of a token."""
    encoder_width: int = 32
    """d, channels of the encoders PLFE1 and PLFE2."""
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

    def __post_init__(self) -> None:
        """Refuse values no network can be built from."""
        if self.bands is not None and self.bands < 1:
            raise ModelError(f"config: bands must be at least 1 or None, not {self.bands}")
        if round(self.tokens**0.5) ** 2 != self.tokens:
            raise ModelError(f"config: tokens must be a square number, not {self.tokens}")
        if self.kernel % 2 == 0:
            raise ModelError(f"config: kernel must be odd, not {self.kernel}")

    @property
    def group(self) -> int:
        """MS bands in one run of the network."""
        return self.bands or 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Rebuild a configuration from :meth:`to_dict`'s values after JSON.

        Raises:
            ModelError: a value is unknown here (a newer file) or missing its form.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"config holds unknown values {', '.join(unknown)}: written by a newer ksdiff?")
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)
