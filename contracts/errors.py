"""The errors that a command reports in one line: bad input from a user, and a task that failed on a rank."""


class InputError(ValueError):
    """Bad input from a user: a file, a row, a field or an option.

    The message names the file or field, its value, the limit, and what to do. Jobs print it without a traceback and
    exit with status 2. Files that were there before are left as they were.
    """


class TaskFailed(Exception):
    """A task failed on a rank, and its input is not at fault; the message is one line."""
