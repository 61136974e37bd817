"""Work files that cannot be written: the message says what to do, and whether the disk is full."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from contracts.errors import InputError
from data.prepare.engine.plan import Rules
from data.prepare.engine.workplace import Workplace, prepared
from tests.data.engine.preparing import source_of_random_rows


@pytest.mark.parametrize(
    ("error", "move"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space there"),
        (OSError("Not enough free space to write 80 bytes"), "free space there"),  # NumPy's, which has no number
        (OSError(errno.EACCES, "Permission denied"), "change permissions or the output"),
    ],
)
def test_the_next_move_is_that_of_the_error(error: OSError, move: str, tmp_path: Path) -> None:
    def failing(_num_bytes: int) -> NoReturn:
        raise error

    source = source_of_random_rows()
    with (
        pytest.raises(InputError, match=rf"cannot be written \(.*\); {move}, and repeat the command"),
        prepared(source, Rules(), Workplace(folder=tmp_path / "work", executor=failing)),
    ):
        pass
