"""The error for bad input from a user, as opposed to a bug of the program."""


class InputError(ValueError):
    """Bad input from a user: a file, a row, a field or an option.

    The message names the file or field, its value, the limit, and what to do. Jobs print it without a traceback and
    exit with status 2. Files that were there before are left as they were.
    """
