"""Fine-tuning a network on windows of the one scene that it is to sharpen, by what the scene's own images tell."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ksdiff_cli.models.contract import Inputs, Statistics
from ksdiff_cli.models.ksdiff import KSDiff
from ksdiff_cli.models.observation import AxisMap, Observed, see, spread

CROP = 40
"""Side of the part of a window that a step looks at in full resolution, MS pixels."""
_RATE = 3e-3
_STRUCTURE, _ANCHOR = 0.6, 0.1  # of the losses, beside 1 for what MS and the scene one scale below say
_UNLIKE, _HASTE = 1.03, 0.5  # D_rho, as a share of what it was, at which the structural loss keeps its weight
_FLAT = 1e-6  # variance of standardised values below which nothing correlates
_BORDER = 4  # MS pixels at a window's border that no loss counts
_BELOW = 12  # pixels at the lower scale's border, which see less


@dataclass(frozen=True)
class Window:
    """A part of the scene without holes."""

    pan: Tensor
    """(1, 1, H, W) DN; sides multiples of 16."""
    observed: Observed


def tune(
    model: KSDiff,
    statistics: Statistics,
    windows: Sequence[Window],
    steps: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """Move the few weights of a network that its backbone names, in place.

    Every step adds up, in standardised units, the mean absolute values of

    * MS less the output of a part of a window as the MS camera sees it;
    * what 1 - the output's local correlation with PAN exceeds that of MS with PAN at their own scale by (the structural
      loss of Z-PNN: water and woods need not look like PAN), times a weight that begins at .6 and rises or falls until
      D_rho is 1.03 of what it was (all that is learnt is seldom used, and less of it has a lower one): the other losses
      would let it rise further, and too much weight makes PAN of what is none;
    * .1 times the output less that of the weights given (an anchor);
    * the scene one scale below: PAN and MS of a window as the scene's own MS camera sees them, at a random phase, are
      sharpened, and MS is the truth. As one camera stands between both pairs, no other sharpness is learnt.

    Args:
        model: without prior, or with the scene's kernels folded in (:meth:`KSDiff.folded`): kernels that are made anew
            from what the moving weights see would not be those that were trained with. Its backbone observes.
        statistics: the scene's, with its cameras.
        windows: to train on.
        steps: of Adam; the rate falls to 0.
        seed: of the order and the phases.
        progress: told the steps done.

    References:
        Ciotola, Vitale, Mazza, Poggi, Scarpa, "Pansharpening by convolutional neural networks in the full resolution
        framework", IEEE TGRS 60, 2022 (reprojection and structural loss); the lower scale by Wald's protocol.
    """
    scene = _Scene(model, statistics)
    model.requires_grad_(False)
    moving = [
        {"params": list(model.network.get_submodule(part).requires_grad_(True).parameters()), "pace": pace}
        for part, pace in model.network.adapts.items()
    ]
    with torch.no_grad():
        before = [scene.fuse(window.pan, window.observed)[1] for window in windows]
    optimizer = torch.optim.Adam(moving, _RATE, betas=(0.9, 0.99))
    random = np.random.default_rng(seed)
    for step in range(steps):
        number = int(random.integers(len(windows)))
        loss = scene.loss_at_full(windows[number], before[number], random) + scene.loss_below(windows[number], random)
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * _RATE * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress(step + 1, steps)
    model.requires_grad_(True)


class _Scene:
    """What belongs to the scene while a network is tuned: its statistics, and the weight of the structural loss."""

    def __init__(self, model: KSDiff, statistics: Statistics) -> None:
        assert statistics.cameras is not None and not model.config.prior
        self._model, self._statistics, self._cameras = model, statistics, statistics.cameras
        self._structure = _STRUCTURE

    def fuse(self, pan: Tensor, observed: Observed, gt: Tensor | None = None) -> tuple[Inputs, Tensor]:
        """Return the inputs, and the output, (1, C, H, W) standardised."""
        inputs = self._model.prepare(pan, observed, self._statistics, round(observed.ratio), gt)
        fused: Tensor = self._model(inputs, None)
        return inputs, fused.transpose(0, 1)

    def loss_at_full(self, window: Window, before: Tensor, random: np.random.Generator) -> Tensor:
        """What MS and PAN say of a part of a window."""
        ratio = window.observed.ratio
        side = max(16, round(CROP * ratio / 16) * 16)
        rows, cols = (_draw(size, side, random) for size in window.pan.shape[2:])
        before, observed = before[..., rows, cols], window.observed.cut(rows, cols)
        inputs, fused = self.fuse(window.pan[..., rows, cols], observed)
        assert inputs.observation is not None
        observed = inputs.observation.observed  # standardised
        lacking = (see(fused, observed, self._cameras) - observed.ms)[_inside(_BORDER)].abs().mean()
        upsampled = inputs.M.transpose(0, 1)
        inner = _inside(round(_BORDER * ratio))
        with torch.no_grad():
            low = spread(see(inputs.P, observed, self._cameras), observed, (inputs.P.shape[2], inputs.P.shape[3]))
            allowed = 1 - correlate(upsampled, low, 2 * round(2 * ratio) + 1)
            unlike, was = (_unlike_details(image, inputs.P, ratio)[inner].mean() for image in (fused, before))
        structure = F.relu(1 - correlate(fused, inputs.P, 2 * math.ceil(ratio / 2) + 1) - allowed)[inner].mean()
        loss = lacking + self._structure * structure + _ANCHOR * (fused - before)[inner].abs().mean()
        self._structure *= math.exp(_HASTE * float((unlike / was.clamp_min(_FLAT) - _UNLIKE).clamp(-1, 1)))
        return loss

    def loss_below(self, window: Window, random: np.random.Generator) -> Tensor:
        """What MS says as the truth of a pair one scale below."""
        ms, ratio = window.observed.ms, window.observed.ratio
        rows, cols = (AxisMap(1 / ratio, (1 / ratio - 1) / 2 - 1 + phase) for phase in random.uniform(-0.5, 0.5, 2))
        size = [int(count / ratio) - 2 for count in ms.shape[2:]]
        below = Observed(ms.new_zeros(1, ms.shape[1], *size), None, rows, cols)
        with torch.no_grad():
            pan = see(window.pan, window.observed, self._cameras)
            below = Observed(see(ms, below, self._cameras), None, rows, cols)
        height, width = (count // 16 * 16 for count in ms.shape[2:])
        inputs, fused = self.fuse(pan[..., :height, :width], below, ms[..., :height, :width])
        assert inputs.G is not None
        return (fused - inputs.G.transpose(0, 1))[_inside(_BELOW)].abs().mean()


def correlate(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Correlate bands (1, C, H, W) with an image (1, 1, H, W) in windows of ``side`` pixels around each: -1 to 1."""
    x_mean, y_mean = _mean(x, side), _mean(y, side)
    both = _mean(x * y, side) - x_mean * y_mean
    x_own, y_own = _mean(x * x, side) - x_mean.square(), _mean(y * y, side) - y_mean.square()
    return both * torch.rsqrt(x_own.clamp_min(_FLAT) * y_own.clamp_min(_FLAT))


def _unlike_details(x: Tensor, y: Tensor, ratio: float) -> Tensor:
    """Return D_rho of every pixel: 1 - the correlation of what local means leave of bands and of PAN."""
    side = 2 * (round(ratio) // 2) + 1
    return 1 - correlate(x - _mean(x, side), y - _mean(y, side), side)


def _mean(image: Tensor, side: int) -> Tensor:
    """Average windows of ``side`` pixels, an odd number, around each pixel; borders replicated."""
    return F.avg_pool2d(F.pad(image, (side // 2,) * 4, mode="replicate"), side, 1)


def _draw(size: int, side: int, random: np.random.Generator) -> slice:
    side = min(side, size)
    first = 16 * int(random.integers((size - side) // 16 + 1))
    return slice(first, first + side)


def _inside(border: int) -> tuple[Any, ...]:
    return ..., slice(border, -border), slice(border, -border)
