"""Spectra of the simulated world: a library of ground reflectances, and what a seed makes of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.sensors import SENSORS, Sensor

Float = NDArray[np.float32]

WAVELENGTHS = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2", "swir1", "swir2")
"""The library's columns; a sensor's ``nir`` is read as ``nir1``."""
NANOMETRES = (425.0, 480.0, 545.0, 605.0, 660.0, 725.0, 835.0, 950.0, 1610.0, 2200.0)
"""Where the columns lie."""

# Reflectance in percent, rounded from the general shape of published field spectra.
LIBRARY: dict[str, tuple[float, ...]] = {
    "grass": (3, 3.5, 8, 6, 4, 22, 47, 49, 22, 10),
    "crop": (2.5, 3, 7, 5, 3.5, 20, 44, 46, 20, 9),
    "young crop": (4.5, 6, 10, 10, 9.5, 20, 34, 36, 26, 17),
    "blossom": (4, 5, 17, 19, 12, 30, 48, 49, 24, 12),
    "ripe": (7, 9, 15, 20, 23, 27, 33, 36, 38, 25),
    "dry grass": (6, 8, 13, 16, 18, 24, 30, 33, 35, 24),
    "broadleaf": (2, 2.5, 5, 4, 3, 16, 38, 40, 17, 7),
    "conifer": (1.8, 2, 3.5, 3, 2.2, 10, 23, 25, 11, 5),
    "autumn tree": (2.5, 3, 6, 9, 9, 20, 33, 35, 22, 11),
    "shrub": (3, 4, 6.5, 7, 6.5, 15, 27, 29, 22, 13),
    "dark soil": (5, 6, 8, 10, 12, 14, 18, 20, 26, 22),
    "brown soil": (7, 9, 13, 17, 20, 23, 27, 30, 38, 33),
    "red soil": (5, 6, 10, 18, 25, 29, 33, 35, 42, 36),
    "pale soil": (18, 22, 28, 32, 34, 36, 39, 41, 45, 41),
    "sand": (14, 18, 25, 31, 35, 38, 42, 44, 50, 46),
    "rock": (12, 14, 17, 19, 20.5, 21.5, 23, 24, 26, 24),
    "asphalt": (6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5, 11, 11),
    "worn asphalt": (10, 11, 13, 14, 14.5, 15, 16, 17, 19, 18),
    "concrete": (18, 21, 25, 27.5, 29, 30, 32, 33, 34, 30),
    "paving": (24, 28, 32, 35, 36.5, 38, 40, 41, 42, 38),
    "red tile": (5, 6, 9, 18, 26, 29, 33, 34, 38, 33),
    "brown tile": (5, 6, 8, 12, 15, 17, 21, 23, 28, 25),
    "blue metal": (20, 28, 22, 14, 12, 14, 21, 26, 30, 25),
    "green metal": (8, 10, 20, 14, 9, 11, 20, 25, 28, 23),
    "white roof": (42, 53, 58, 60, 61, 62, 62, 61, 52, 44),
    "grey roof": (13, 14.5, 16, 17, 17.5, 18, 19, 20, 22, 21),
    "dark roof": (4.5, 5, 5.3, 5.6, 6, 6.5, 7, 7.5, 9, 9),
    "metal": (28, 31, 33, 34, 35, 35.5, 36, 36, 38, 36),
    "car": (40, 47, 50, 52, 53, 54, 55, 55, 50, 45),
    "clear water": (4.5, 4, 3, 2, 1.3, 1, 0.6, 0.5, 0.2, 0.1),
    "green water": (4, 4.5, 7, 5, 3.5, 3, 1.6, 1.2, 0.4, 0.2),
    "turbid water": (6, 8, 12, 13, 12, 8, 4, 3, 0.6, 0.3),
    "snow": (64, 66, 66, 65, 64, 62, 57, 50, 9, 6),
}

VARIANTS = 64
"""Differently perturbed spectra per kind of ground."""

# kind: (library members, brightness spread, spectral spread, grey texture, vegetation texture)
_KINDS: dict[str, tuple[tuple[str, ...], float, float, float, float]] = {
    "crop": (("crop", "grass", "young crop", "young crop", "ripe", "dry grass", "blossom", "brown soil", "dark soil",
              "red soil"), 0.16, 0.08, 0.05, 0.10),
    "meadow": (("grass", "grass", "dry grass", "shrub"), 0.14, 0.07, 0.10, 0.18),
    "arid": (("dry grass", "brown soil", "pale soil", "sand", "shrub", "red soil"), 0.12, 0.05, 0.09, 0.12),
    "forest": (("broadleaf", "conifer", "shrub"), 0.15, 0.08, 0.16, 0.16),
    "soil": (("dark soil", "brown soil", "red soil", "pale soil", "sand"), 0.16, 0.06, 0.08, 0.04),
    "yard": (("grass", "grass", "grass", "dry grass", "concrete", "brown soil", "worn asphalt", "shrub"),
             0.18, 0.08, 0.10, 0.12),
    "paved": (("worn asphalt", "concrete", "asphalt", "paving", "brown soil", "worn asphalt"), 0.16, 0.05, 0.07, 0.02),
    "road": (("asphalt", "worn asphalt", "worn asphalt", "concrete"), 0.14, 0.04, 0.05, 0.01),
    "track": (("brown soil", "pale soil", "dry grass", "dark soil"), 0.12, 0.06, 0.07, 0.04),
    "water": (("clear water", "green water", "turbid water"), 0.18, 0.12, 0.03, 0.03),
    "rock": (("rock", "rock", "brown soil", "pale soil"), 0.14, 0.05, 0.14, 0.04),
    "snow": (("snow",), 0.10, 0.03, 0.03, 0.01),
    "tree": (("broadleaf", "broadleaf", "conifer", "autumn tree", "grass"), 0.22, 0.12, 0.12, 0.10),
    "roof": (("red tile", "brown tile", "grey roof", "dark roof", "white roof", "blue metal", "metal", "concrete",
              "green metal", "grey roof"), 0.22, 0.10, 0.03, 0.0),
    "car": (("car", "car", "metal", "dark roof", "red tile", "blue metal", "grey roof"), 0.25, 0.15, 0.0, 0.0),
}  # fmt: skip
KIND: dict[str, int] = {name: number * VARIANTS for number, name in enumerate(_KINDS)}
"""Palette row at which each kind's variants begin."""


@dataclass(frozen=True)
class Spectra:
    """One scene's colours. Channels are the sensor's MS bands and, last, PAN."""

    names: tuple[str, ...]
    """Names of the MS bands."""
    palette: Float
    """(channels, kinds × VARIANTS) reflectances; the rows of a kind begin at ``KIND[kind]``."""
    grey: Float
    """(kinds × VARIANTS,) strength of the texture common to all bands."""
    green: Float
    """(kinds × VARIANTS,) strength of the texture that differs between bands."""
    leaf: Float
    """(channels,) how the second texture moves each channel: NIR up, red down."""
    sky: Float
    """(channels,) share of the light that reaches a shadow, bluish."""
    gain: Float
    """(channels,) digital numbers per unit of reflectance."""
    haze: Float
    """(channels,) reflectance added by the air."""
    read_noise: Float
    """(channels,) standard deviation of the signal-independent noise, digital numbers."""
    shot_noise: Float
    """(channels,) noise variance per digital number."""
    top: int
    """Largest digital number."""


def band_weights(sensor: Sensor, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return what each band sees of the library's columns: (bands, wavelengths), rows of sum 1.

    A band of a known name is that column. Any other sees what its wavelengths cover, if the sensor states them.

    Raises:
        KsdiffError: a name that is not known, of a band without wavelengths.
    """
    weights = np.zeros((len(names), len(WAVELENGTHS)))
    for band, name in enumerate(names):
        column = "nir1" if name == "nir" else name
        if column in WAVELENGTHS:
            weights[band, WAVELENGTHS.index(column)] = 1
        elif len(sensor.wavelengths) == len(names):
            weights[band] = _within(*sensor.wavelengths[band])
        else:
            raise KsdiffError(
                f"no spectra for band {name!r}: known are {', '.join(WAVELENGTHS)}; or state the wavelengths of all "
                "bands in the sensor file"
            )
    return weights


def _within(low: float, high: float) -> NDArray[np.float64]:
    """Return the columns' weights (sum 1) of a response between two edges in nm: spectra are straight between columns.

    Outside the library's range the nearest column counts.
    """
    place = np.linspace(low, high, 101)
    weights = np.array([np.interp(place, NANOMETRES, unit).mean() for unit in np.eye(len(NANOMETRES))])
    return weights


def make_spectra(sensor: Sensor, names: tuple[str, ...], seed: int) -> Spectra:
    """Draw one scene's spectra, air, PAN response and noise.

    Args:
        sensor: its bit depth sets the range; the generic sensor stands for an 11 bit camera. PAN's response is drawn
            from the seed, but follows the wavelengths that a sensor file states.
        names: MS band names.
        seed: any seed of the scene.

    Returns:
        The scene's colours for ``len(names)`` MS channels and PAN.
    """
    rng = np.random.default_rng([seed, 1])
    response = _pan_response(rng)
    if sensor.pan_wavelengths and sensor.name not in SENSORS:
        response = _within(*sensor.pan_wavelengths)
    mix = np.concatenate([band_weights(sensor, names), response[None]])
    wide = np.concatenate([_variants(rng, *kind[:3]) for kind in _KINDS.values()])
    strengths = np.array([kind[3:] for kind in _KINDS.values()]).repeat(VARIANTS, axis=0)
    strengths = strengths * rng.uniform(0.5, 1.5, (len(_KINDS), 1)).repeat(VARIANTS, axis=0)
    leaf = np.array([-0.3, -0.4, -0.1, -0.5, -0.8, 0.3, 0.9, 0.9, -0.2, -0.6]) * rng.uniform(0.6, 1.2)
    air = np.array([10, 7.5, 4.5, 3.5, 2.8, 2.2, 1.6, 1.3, 0.3, 0.1]) / 100 * rng.uniform(0.3, 1.3)
    sky = np.array([45, 39, 30, 27, 24, 21, 18, 17, 12, 10]) / 100 * rng.uniform(0.7, 1.15)
    bits = 11 if sensor.name == "generic" else sensor.bits
    top = 2**bits - 1
    # A 16 bit camera does not fill its range; an 8 bit one does.
    fill = {8: rng.uniform(0.9, 1.6), 10: rng.uniform(0.8, 1.6), 16: rng.uniform(0.35, 0.6)}
    level = top * fill.get(bits, rng.uniform(0.6, 1.4))
    gain = level * rng.uniform(0.8, 1.2, len(names) + 1)
    unit = top / 2047
    return Spectra(
        names=names,
        palette=np.ascontiguousarray((mix @ wide.T).astype(np.float32)),
        grey=strengths[:, 0].astype(np.float32),
        green=strengths[:, 1].astype(np.float32),
        leaf=(mix @ leaf).astype(np.float32),
        sky=(mix @ sky).astype(np.float32),
        gain=gain.astype(np.float32),
        haze=(mix @ air).astype(np.float32),
        read_noise=(unit * rng.uniform(0.6, 2.0, len(names) + 1)).astype(np.float32),
        shot_noise=(unit * rng.uniform(0.004, 0.03, len(names) + 1)).astype(np.float32),
        top=top,
    )


def _pan_response(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return PAN's weights over the wavelengths (sum 1): NIR from hardly at all to fully, SWIR never."""
    visible = np.array([0.05, 0.6, 1.0, 1.0, 1.0, 0.95, 0, 0, 0, 0]) * rng.uniform(0.7, 1.3, 10)
    near = rng.choice([0.05, 0.4, 0.8, 1.0]) * rng.uniform(0.7, 1.3)
    visible[6:8] = near * np.array([1.0, rng.uniform(0.0, 0.6)])
    response: NDArray[np.float64] = visible / visible.sum()
    return response


def _variants(
    rng: np.random.Generator, members: tuple[str, ...], brightness: float, tilt: float
) -> NDArray[np.float64]:
    """Return (VARIANTS, wavelengths) reflectances: mixtures of two members, brightened and bent at random."""
    pure = np.array([LIBRARY[name] for name in members]) / 100
    # A scene knows some members well and others hardly: the land has a character.
    liking = rng.dirichlet(np.full(len(members), 1.2))
    first, second = rng.choice(len(members), (2, VARIANTS), p=liking)
    share = rng.beta(0.5, 2.5, (VARIANTS, 1))
    spectra = pure[first] * (1 - share) + pure[second] * share
    place = np.linspace(-1, 1, len(WAVELENGTHS))
    bend = rng.normal(0, tilt, (VARIANTS, 3)) @ np.stack([place, place**2 - 0.4, np.cos(4 * place)])
    spectra = spectra * np.exp(rng.normal(0, brightness, (VARIANTS, 1)) + bend)
    spectra *= np.exp(rng.normal(0, 0.04, (1, len(WAVELENGTHS))))
    bounded: NDArray[np.float64] = np.clip(spectra, 0.001, 0.95)
    return bounded
