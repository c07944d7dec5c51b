"""HQNR: the hybrid quality with no reference."""


def hqnr(d_lambda: float, d_s: float) -> float:
    """Return (1 - D_lambda)(1 - D_s), with Khan's D_lambda.

    Plain upsampling scores high on it: it proves nothing alone.

    Args:
        d_lambda: spectral distortion, [0, 1].
        d_s: spatial distortion, [0, 1].

    Returns:
        [0, 1], 1 is best.

    References:
        Aiazzi et al., "Full-scale assessment of pansharpening methods and data products", SPIE Remote Sensing 2014.
    """
    return (1 - d_lambda) * (1 - d_s)
