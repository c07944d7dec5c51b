"""How to read every figure that is reported."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class About:
    """How to read a metric."""

    better: Literal["higher", "lower", "nearer"]
    """Where the better value lies; ``nearer`` to the ideal, on either side of it."""
    ideal: float
    undefined: str
    """When it is undefined."""
    what: str
    """A definition in one line."""
    unit: str = ""
    rewards: str = ""
    """Of metrics without a truth: what raises it."""
    fooled: str = ""
    """Of metrics without a truth: what raises it although the image is no better."""

    @property
    def arrow(self) -> str:
        """The sign that tells the good direction."""
        return {"higher": "↑", "lower": "↓", "nearer": f"→{self.ideal:g}"}[self.better]

    def merit(self, value: float) -> float:
        """Return a figure that is the greater the better the value is; NaN for NaN."""
        return {"higher": value, "lower": -value, "nearer": -abs(value - self.ideal)}[self.better]


SOFTNESS = "HQNR, QNR and D_s reward softness: judge by them only beside D_rho, D_sR and the sharpness"
"""The warning shown with these figures."""


def merit(metric: str, value: float) -> float:
    """Return a figure that is the greater the better a metric's value is; of an unknown metric lower is better."""
    return ABOUT[metric].merit(value) if metric in ABOUT else -value


_NO_CELL = "no 32 x 32 cell without nodata"
_NO_MS = "no MS pixel that sees no nodata"
ABOUT: dict[str, About] = {
    "SAM": About(
        "lower",
        0,
        "no pixel with a spectrum other than 0 in both images",
        "spectral angle between fused and true pixel, mean over pixels",
        "°",
    ),
    "ERGAS": About(
        "lower",
        0,
        "a reference band has mean 0",
        "relative error over all bands, scaled by the ratio of pixel sizes",
    ),
    "Q2n": About("higher", 1, _NO_CELL, "hypercomplex quality index of all bands at once, mean over 32-pixel cells"),
    "SCC": About("higher", 1, "an image without any gradient", "correlation of the gradients of both images"),
    "Q_avg": About(
        "higher",
        1,
        "no 32 x 32 window without nodata",
        "universal quality index of each band, mean over bands and 32-pixel windows",
    ),
    "PSNR": About("higher", math.inf, "no valid pixel", "peak signal to noise ratio", "dB"),
    "SSIM": About("higher", 1, "no 11 x 11 window without nodata", "structural similarity, mean over bands"),
    "D_lambda": About(
        "lower",
        0,
        _NO_CELL,
        "spectral distortion (Khan): 1 − Q2n of upsampled MS and the fused image as the MS camera would see it",
        rewards="colours that are those of MS at MS's scale",
        fooled="no detail at all, as plain upsampling; a shift between PAN and MS counts against sharp images",
    ),
    "D_s": About(
        "lower",
        0,
        _NO_CELL + " and with contrast",
        "spatial distortion: change of each band's quality index with PAN between the two scales",
        rewards="bands that are as like PAN at its scale as at MS's",
        fooled="softness: missing detail lowers it, and so do noise and dots that are not PAN's",
    ),
    "HQNR": About(
        "higher",
        1,
        "D_lambda or D_s undefined",
        "(1 − D_lambda) (1 − D_s)",
        rewards="what these two reward",
        fooled="softness: upsampled MS scores high and sharper images lower; never choose by it alone",
    ),
    "QNR": About(
        "higher",
        1,
        _NO_CELL + " and with contrast",
        "as HQNR, with the spectral distortion of band pairs",
        rewards="bands that are as like each other as MS's are",
        fooled="softness, as for HQNR",
    ),
    "D_rho": About(
        "lower",
        0,
        "no pixel whose window is free of nodata and inside the image",
        "1 − correlation of each band with PAN in windows as wide as an MS pixel, mean over pixels and bands",
        rewards="PAN's detail, at its place, in every band",
        fooled="a copy of PAN in every band; it asks for PAN's detail even where a band truly has none of it",
    ),
    "D_sR": About(
        "lower",
        0,
        "PAN is constant",
        "what no weighted sum of the fused bands explains of PAN, as a share of its variance (1 − R²)",
        rewards="PAN's detail in the bands' weighted sum",
        fooled="any one set of gains: component substitution scores 0 whatever its colours; PAN's noise counts",
    ),
    "RQNR": About(
        "higher",
        1,
        "D_lambda or D_sR undefined",
        "(1 − D_lambda) (1 − D_sR)",
        rewards="MS's colours and PAN's detail together",
        fooled="detail in the wrong bands: D_lambda does not see detail, D_sR only the bands' sum",
    ),
    "R_Q2n": About(
        "higher",
        1,
        "MS is under 16 pixels, or " + _NO_MS,
        "Q2n of MS and the fused image brought back to MS's pixels by its camera, after each band's shift",
        rewards="an image that the MS camera would have seen as MS",
        fooled="no detail at all: what lies above MS's resolution is not looked at; a wrong MTF favours its user",
    ),
    "R_ERGAS": About(
        "lower",
        0,
        _NO_MS,
        "ERGAS of the same two images",
        rewards="the same as R_Q2n, in DN, band by band",
        fooled="the same as R_Q2n",
    ),
    "R_SAM": About(
        "lower",
        0,
        _NO_MS,
        "SAM of the same two images",
        "°",
        rewards="the same as R_Q2n, colours alone",
        fooled="the same as R_Q2n; one gain for all bands of a pixel does not change it either",
    ),
    "D_lambda_align": About(
        "lower",
        0,
        "as R_Q2n",
        "1 − R_Q2n: spectral distortion at MS's scale after each band's shift",
        rewards="the same as R_Q2n: unlike for D_lambda a shift between PAN and MS does not count",
        fooled="the same as R_Q2n",
    ),
    "sharpness_finest": About(
        "nearer",
        1,
        "no pixel 12 px from nodata and the border, or no detail",
        "spread of the bands' finest octave (1/4 to 1/2 cycles a pixel) over the next, relative to PAN's",
        rewards="as much of the finest detail as PAN has",
        fooled="noise, dots and stairs: detail is counted, not judged",
    ),
    "sharpness_next": About(
        "nearer",
        1,
        "as sharpness_finest",
        "the same an octave coarser (1/8 to 1/4 cycles a pixel)",
        rewards="as much of the next finest detail as PAN has",
        fooled="the same as sharpness_finest; and a band that truly is smoother than PAN counts as soft",
    ),
}
"""Every figure that is reported, in the order of the tables."""
