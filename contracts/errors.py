"""The error that is somebody's input, not our bug."""


class InputError(ValueError):
    """Bad input from a person: a file, a row, a field, a flag.

    The message names the file or field, the value found, the limit, and the next move. Jobs print it
    without a traceback and exit with status 2; nothing already written is touched.
    """
