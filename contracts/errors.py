"""The errors that a command reports in one line: bad input from a user, and a task that failed on a rank."""


class InputError(ValueError):
    """Bad input from a user: a file, a row, a field or an option.

    The message names the file or field, its value, the limit, and what to do. Jobs print it without a traceback and
    exit with status 2. Files that were there before are left as they were.
    """


def of_missing_ray(error: ModuleNotFoundError) -> InputError | None:
    """Return the error of a command that needs Ray where it is not installed; None if another module is missing."""
    if error.name is None or error.name.partition(".")[0] != "ray":
        return None
    return InputError(
        "this needs Ray, which is not installed; install it, as `make install` does, or use one process: set "
        "cluster.num_workers=1, name no cluster with cluster.address or RAY_ADDRESS, and build graphs with "
        "--executor serial"
    )


class TaskFailed(Exception):
    """A task failed on a rank, and its input is not at fault; the message is one line."""
