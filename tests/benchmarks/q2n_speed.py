"""Q2n against plain loops written from the definition, over blocks and over pixels; side by side, in one run.

    python tests/benchmarks/q2n_speed.py [--size 256] [--bands 8] [--repeat 5]

Prints the times, their ratios and how far the values are apart. The reference toolbox under GNU Octave is on record
with 1.02 s for 256 x 256 x 8.
"""

import argparse
import time

import numpy as np

from ksdiff_cli.metrics import q2n

BLOCK = 32


def multiply(u, v):
    """Hypercomplex product of (..., n) arrays by Cayley-Dickson doubling."""
    n = u.shape[-1]
    if n == 1:
        return u * v
    if n == 2:
        real = u[..., 0] * v[..., 0] - u[..., 1] * v[..., 1]
        return np.stack([real, u[..., 0] * v[..., 1] + u[..., 1] * v[..., 0]], -1)
    a, b, c, d = u[..., : n // 2], u[..., n // 2 :], v[..., : n // 2], v[..., n // 2 :]
    first = multiply(a, c) - multiply(conjugate(d), b)
    second = multiply(conjugate(a), conjugate(d)) + multiply(c, conjugate(b))
    return np.concatenate([first, second], -1)


def conjugate(u):
    return np.concatenate([u[..., :1], -u[..., 1:]], -1)


def mean_product(x, y):
    """E(x∘y) over pixels, all at once."""
    return multiply(x, y).mean((0, 1))


def looped_mean_product(x, y):
    """The same, pixel by pixel."""
    total = np.zeros(x.shape[-1])
    for row in range(BLOCK):
        for col in range(BLOCK):
            total += multiply(x[row, col], y[row, col])
    return total / (BLOCK * BLOCK)


def plain_q2n(gt, fused, mean_product):
    """(bands, H, W) in whole DN, sides multiples of 32, bands a power of two."""
    values = []
    n, k = BLOCK * BLOCK, BLOCK * BLOCK / (BLOCK * BLOCK - 1)
    for row in range(0, gt.shape[1], BLOCK):
        for col in range(0, gt.shape[2], BLOCK):
            x = np.moveaxis(gt[:, row : row + BLOCK, col : col + BLOCK], 0, -1).astype(np.float64)
            y = np.moveaxis(fused[:, row : row + BLOCK, col : col + BLOCK], 0, -1).astype(np.float64)
            for band in range(len(gt)):
                s, t = x[..., band].mean(), x[..., band].std(ddof=1) or 2.0**-52
                x[..., band] = (x[..., band] - s) / t + 1
                y[..., band] = y[..., band] + 1 if s == 0 else (y[..., band] - s) / t + 1
            y = conjugate(y)
            m1, m2 = x.mean((0, 1)), y.mean((0, 1))
            size1, size2 = np.sqrt((m1**2).sum()), np.sqrt((m2**2).sum())
            spread = k * ((x**2).sum() / n + (y**2).sum() / n - size1**2 - size2**2)
            bias = 2 * size1 * size2 / (size1**2 + size2**2)
            q = k * (mean_product(x, y) - multiply(m1, m2)) * bias * 2 / spread
            values.append(np.sqrt((q**2).sum()))
    return float(np.mean(values))


def best(function, repeat):
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        value = function()
        times.append(time.perf_counter() - begin)
    return min(times), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--bands", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    random = np.random.default_rng(0)
    shape = (chosen.bands, chosen.size, chosen.size)
    gt = random.integers(100, 1800, shape).astype(np.float64)
    fused = np.clip(np.rint(gt + random.normal(0, 60, shape)), 0, 2047)
    fast, ours = best(lambda: q2n(gt, fused), chosen.repeat)
    print(f"{chosen.size} x {chosen.size} x {chosen.bands}: ksdiff {fast:.4f} s")
    for name, product, repeat in (("blocks", mean_product, chosen.repeat), ("pixels", looped_mean_product, 1)):
        slow, plain = best(lambda product=product: plain_q2n(gt, fused, product), repeat)
        apart = abs(plain - ours) / ours
        print(f"plain loop over {name}: {slow:.4f} s, {slow / fast:.1f} times ksdiff's; values {apart:.1e} apart")


if __name__ == "__main__":
    main()
