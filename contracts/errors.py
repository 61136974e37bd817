"""Errors that a command tells in one line: bad input, and a task that failed on a rank."""


class InputError(ValueError):
    """Bad input from a person: a file, a row, a field, a flag.

    The message names the file or field, the value found, the limit, and the next move. Jobs print it
    without a traceback and exit with status 2; nothing already written is touched.
    """


class TaskFailed(Exception):
    """A task failed on a rank, and its input is not at fault; the message is one line."""
