"""The default network as it sharpens one scene, as a plain graph: convolutions of fixed kernels, for other runtimes.

What a scene taught is folded in: its kernels, statistics, cameras, and where MS lies on PAN's grid. For whole ratios,
so that the camera and the way back are strided convolutions of one kernel; both images are windows of any size.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.unrolled import _AREA, _EPS, _LIMIT, Unrolled
from .contract import Observation, Statistics, _spread
from .ksdiff import KSDiff
from .observation import COMPENSATION_SIGMA, AxisMap, Observed, mtf_sigma, resharpen

_REACH = 3.5  # deviations of the camera's Gaussian, as observation.py has it


class SceneGraph(nn.Module):
    """PAN (1, 1, H, W) and MS (1, C, h, w), DN -> (1, C, H, W), DN; H = ratio h, W = ratio w, multiples of ``step``.

    It gives what :meth:`KSDiff.fuse` gives with the same kernels, to rounding.
    """

    def __init__(self, model: KSDiff, known: Statistics, kernels: list[Tensor], observed: Observed) -> None:
        """Fold in what the scene taught.

        Args:
            model: with the backbone ``unrolled``.
            known: the scene's statistics, with its cameras.
            kernels: the scene's.
            observed: where MS lies on windows, whose ratio is whole; MS itself does not count.
        """
        super().__init__()
        assert isinstance(model.network, Unrolled) and known.cameras is not None
        self.ratio, self.sharpness = round(observed.ratio), observed.sharpness
        self.step = math.lcm(model.network.multiple, self.ratio)
        nothing = torch.zeros(1, 1, self.step, self.step)
        small = Observed(nothing[..., :1, :1].expand(1, known.ms_mean.shape[1], 1, 1), None, *_axes(observed))
        self.seen = cast(Observation, model.prepare(nothing, small, known, self.ratio).observation)
        self.network = cast(Unrolled, model.folded(kernels).network)
        self.pan_mean, self.ms_mean = known.pan_mean[..., None, None], known.ms_mean[..., None, None]
        self.pan_std, self.ms_std = _spread(known.pan_std, known.pan_mean), _spread(known.ms_std, known.ms_mean)
        self.back = _spread(known.ms_std, known.ms_mean, constant=0)
        self.up = [_Cubic(axis, self.ratio) for axis in (observed.rows, observed.cols)]
        gain, k = float(known.cameras.gain[0]), float(known.cameras.compensation[0])
        sigma = float(mtf_sigma(torch.tensor(gain, dtype=torch.float64), self.ratio))
        wide = math.hypot(sigma, COMPENSATION_SIGMA * self.ratio)
        self.views = [(1 + k, self._camera(observed, sigma)), *([(-k, self._camera(observed, wide))] if k else [])]

    def _camera(self, observed: Observed, sigma: float) -> "list[_Gaussian]":
        return [_Gaussian(axis, self.ratio, sigma) for axis in (observed.rows, observed.cols)]

    def forward(self, pan: Tensor, ms: Tensor) -> Tensor:
        """See the class."""
        P = (resharpen(pan, self.sharpness) - self.pan_mean) / self.pan_std
        M = (ms - self.ms_mean) / self.ms_std
        fused, belief = self._learn(P, self._spread(M))
        fused = self.network._explain_pan(fused, P, belief, self.seen)
        fused = self._explain_ms(fused, P, M)
        fused = self.network._explain_pan(fused, P, belief, self.seen)
        return self.ms_mean + fused * self.back

    def _learn(self, P: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Do as :meth:`Unrolled._learn` with a whole image."""
        net, seen = self.network, self.seen
        detail = P - seen.offset - self._mix(up)
        halves = F.pixel_unshuffle(F.avg_pool2d(up, net.patch // 2)[0, :, None], 2)
        known = torch.cat((halves, self._compare(halves.mean(1))), 1)
        both = F.pixel_unshuffle(torch.cat((P, detail), 1), net.patch)
        around = (net.around,) * 4
        known, both = F.pad(known, around, mode="replicate"), F.pad(both, around, mode="replicate")
        x, features = net._look(known, both, seen, None, 1)
        inside = (..., *(slice(net.around, -net.around),) * 2)
        gain, correction = net.head(x, None, 1)[inside].chunk(2, 1)
        change = correction + gain * both[:, net.patch**2 :][inside]
        belief = 0.5 + 0.5 * torch.sigmoid(net.believe(features)[inside])
        return up + F.pixel_shuffle(change, net.patch).transpose(0, 1), F.pixel_shuffle(belief, net.patch)

    def _compare(self, means: Tensor) -> Tensor:
        """Do as :meth:`Unrolled._compare`: (C, h, w) -> (C, 3, h, w)."""

        def area(x: Tensor) -> Tensor:
            return F.avg_pool2d(x, _AREA, 1, _AREA // 2, count_include_pad=False)

        m = means[None]
        m = m - area(m)
        s = self._mix(m)
        ss, mm, sm = area(s * s) + _EPS, area(m * m) + _EPS, area(s * m)
        found = sm / ss - self.seen.injection, sm * torch.rsqrt(ss * mm), torch.log(mm / ss) / 2
        return torch.stack(found, 2).clamp(-_LIMIT, _LIMIT)[0]

    def _explain_ms(self, fused: Tensor, P: Tensor, M: Tensor) -> Tensor:
        """Do as :meth:`Unrolled._explain_ms`."""
        seen = self.seen
        lacking = M - self._see(fused)
        mixed, unexplained = self._mix(lacking), self._see(P) - seen.offset - self._mix(M)
        known = torch.stack([lacking, mixed.expand_as(M), unexplained.expand_as(M), M], 2)[0]
        first, second = self.network.correct
        learned = second(first(known, None, 1).relu(), None, 1).transpose(0, 1)
        step = torch.sigmoid(self.network.know_step(seen.band_facts) + 1)[..., None]
        return fused + self._spread(step * lacking + learned)

    def _mix(self, bands: Tensor) -> Tensor:
        return F.conv2d(bands, self.seen.weights.view(1, -1, 1, 1))

    def _see(self, image: Tensor) -> Tensor:
        rows_cols = [share * cols(rows(image, 2), 3) for share, (rows, cols) in self.views]
        return rows_cols[0] if len(rows_cols) == 1 else rows_cols[0] + rows_cols[1]

    def _spread(self, image: Tensor) -> Tensor:
        rows, cols = self.up
        return rows(cols(image, 3), 2)


def _axes(observed: Observed) -> tuple[AxisMap, AxisMap]:
    return observed.rows, observed.cols


class _Cubic:
    """Bicubic interpolation by a whole ratio along an axis, borders replicated: one kernel a phase."""

    def __init__(self, axis: AxisMap, ratio: int) -> None:
        at = torch.arange(ratio, dtype=torch.float64) / ratio + axis.offset
        base = torch.floor(at)
        low, high = int(base.min()) - 1, int(base.max()) + 2
        t = (at[:, None] - torch.arange(low, high + 1)).abs()
        weights = torch.where(t <= 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2)
        self.weights = torch.where(t < 2, weights, torch.zeros_like(t)).float()
        self.before, self.after = max(0, -low), max(0, high)
        self.first = self.before + low

    def __call__(self, x: Tensor, axis: int) -> Tensor:
        """(1, C, h, w) -> the axis ``ratio`` times as long."""
        around = (0, 0, self.before, self.after) if axis == 2 else (self.before, self.after, 0, 0)
        x = F.pad(x, around, mode="replicate").transpose(0, 1)
        size, taps = x.shape[axis] - self.before - self.after, self.weights.shape[1]
        x = x.narrow(axis, self.first, size + taps - 1)
        shape = (-1, 1, taps, 1) if axis == 2 else (-1, 1, 1, taps)
        found = F.conv2d(x, self.weights.view(shape))  # (C, phases, h, w)
        order = (0, 2, 1, 3) if axis == 2 else (0, 2, 3, 1)
        return found.permute(order).flatten(axis - 1, axis)[None]


class _Gaussian:
    """A camera's view along an axis: a Gaussian, cut and of unit sum, at the centres of every ``ratio`` pixels."""

    def __init__(self, axis: AxisMap, ratio: int, sigma: float) -> None:
        self.ratio, centre, reach = ratio, -axis.offset / axis.scale, math.ceil(_REACH * sigma)
        low, high = math.ceil(centre - reach - 1e-6), math.floor(centre + reach + 1e-6)
        apart = (torch.arange(low, high + 1, dtype=torch.float64) - centre).square()
        weights = torch.exp(-apart / (2 * sigma**2))
        self.weights = (weights / weights.sum()).float()
        self.around = -low, high + 1 - ratio

    def __call__(self, x: Tensor, axis: int) -> Tensor:
        """(1, C, H, W) -> the axis ``ratio`` times as short; at the border over what there is."""
        around = (0, 0, *self.around) if axis == 2 else (*self.around, 0, 0)
        shape, stride = ((1, 1, -1, 1), (self.ratio, 1)) if axis == 2 else ((1, 1, 1, -1), (1, self.ratio))
        x = x.transpose(0, 1)
        both = torch.cat((x, torch.ones_like(x[:1])))
        found = F.conv2d(F.pad(both, around), self.weights.view(shape), stride=stride)
        return (found[:-1] / found[-1:]).transpose(0, 1)
