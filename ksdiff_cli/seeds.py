"""Seeds of random numbers: one range for all that draws."""

from ksdiff_cli.checks import check_number

LARGEST = 2**24 - 1
"""What leaves room for stage and step in the 64 bits that a step's random numbers start from."""


def check_seed(seed: int) -> None:
    """Refuse a seed that some generator cannot start from.

    Raises:
        KsdiffError: it is no whole number between 0 and :data:`LARGEST`.
    """
    check_number("seed", seed, 0, LARGEST, whole=True)
