"""Whether the shipped weights, read and run here, give what they gave when they were shipped.

Whoever ships other weights writes their figures here: ``python -m ksdiff_cli.weights.check`` prints them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.weights import SHIPPED

HASH = "43fa18faa1ea"
"""First digits of the file's SHA-256."""
EXPECTED = (
    202.23, 217.39, 234.51, 262.77, 214.70, 229.75, 248.42, 277.67,
    237.50, 253.79, 271.78, 300.99, 260.38, 277.27, 295.39, 324.05,
)  # fmt: skip
"""The first band's values on the tiny image, every 16th pixel along both axes, DN."""
_SIDE, _BANDS, _RATIO, _STEP = 64, 3, 4, 16


def fuse_tiny(path: Path = SHIPPED) -> NDArray[np.float32]:
    """Sharpen a tiny made-up image by the weights, on the CPU.

    Returns:
        The first band's values on every 16th pixel, float32 DN.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    import torch

    from ksdiff_cli.models.checkpoint import load_model
    from ksdiff_cli.models.contract import Statistics
    from ksdiff_cli.models.observation import AxisMap, Observed, fit_cameras

    rows, cols = np.mgrid[:_SIDE, :_SIDE]
    pan = (400 + (rows * 7 + cols * 13) % 97 + 3 * (rows // 9 * 5 + cols // 11 * 7) % 211).astype(np.float32)
    coarse = pan.reshape(_SIDE // _RATIO, _RATIO, -1, _RATIO).mean((1, 3))
    ms = np.stack([coarse * (band + 1) / 2 + 10 * band for band in range(_BANDS)])

    def batch(values: Any) -> "torch.Tensor":
        return torch.from_numpy(np.asarray(values, np.float32))[None]

    axis = AxisMap(1 / _RATIO, (1 / _RATIO - 1) / 2)
    observed = Observed(batch(ms), None, axis, axis)
    cameras = fit_cameras(batch(pan[None]), observed, 0.3)
    pan_mean, pan_std = batch([pan.mean()]), batch([pan.std()])
    known = Statistics(pan_mean, pan_std, batch(ms.mean((1, 2))), batch(ms.std((1, 2))), cameras)
    model, _ = load_model(path)
    fused = model.fuse(batch(pan[None]), observed, known, _RATIO, model.noise(0))
    values: NDArray[np.float32] = fused[0, 0, ::_STEP, ::_STEP].numpy().reshape(-1)
    return values


def worst_difference(path: Path = SHIPPED) -> float:
    """Return the largest difference from :data:`EXPECTED`, DN; some hundredths are rounding of another processor."""
    return float(np.abs(fuse_tiny(path) - np.array(EXPECTED, np.float32)).max())


if __name__ == "__main__":
    from ksdiff_cli.models.checkpoint import weights_hash

    print(f'HASH = "{weights_hash(SHIPPED)}"')
    print(f"EXPECTED = {tuple(round(float(value), 2) for value in fuse_tiny())}")
