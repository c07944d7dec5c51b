"""The errors a person is meant to read."""


class KsdiffError(Exception):
    """Work failed for a reason the user can act on.

    The message is one line: it names the file, says what is wrong and what to do. The command line prints it after
    ``Error:`` and exits with 1.
    """
