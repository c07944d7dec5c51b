"""EXP: upsampled MS and nothing else; what every method must beat."""

from collections.abc import Iterable

from ksdiff_cli.classical.method import Method, SceneBlock, Setup, no_reach
from ksdiff_cli.numerics import Array


def gather(blocks: Iterable[SceneBlock], setup: Setup) -> None:
    """Gather nothing."""


def apply(block: SceneBlock, coefficients: None, setup: Setup) -> Array:
    """Return MS as it is, (bands, H, W) float64 DN."""
    return block.ms_up.copy()


METHOD = Method(
    "Interpolation of MS",
    "Aiazzi et al., IEEE TGRS 2002",
    gather,
    apply,
    no_reach,
    no_reach,
)
