"""Seeds of random numbers: one range for all that draws."""

from ksdiff_cli.errors import KsdiffError

LARGEST = 2**24 - 1
"""What leaves room for stage and step in the 64 bits that a step's random numbers start from."""


def check_seed(seed: int) -> None:
    """Refuse a seed that some generator cannot start from.

    Raises:
        KsdiffError: it is not between 0 and :data:`LARGEST`.
    """
    if not 0 <= seed <= LARGEST:
        raise KsdiffError(f"seed {seed}: give a whole number from 0 to {LARGEST}")
