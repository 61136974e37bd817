"""Write docs/bad-input.md from the cases of bad input; a test compares the page with the cases.

python -m tests.jobs.bad_input.document      runs every command again and rewrites the page
"""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.fingerprints import restore
from tests.jobs.bad_input import (
    append_cases,
    compare_cases,
    encode_cases,
    feature_cases,
    graph_cases,
    inspect_cases,
    joined_cases,
    prepare_cases,
    release_cases,
    run_cases,
    study_cases,
)
from tests.jobs.bad_input.case import Case, Group, message_of, run_case, without_a_cluster
from tests.jobs.bad_input.world import make_world

PAGE = Path(__file__).resolve().parents[3] / "docs" / "bad-input.md"
GROUPS: tuple[Group, ...] = (
    *prepare_cases.GROUPS,
    *release_cases.GROUPS,
    *feature_cases.GROUPS,
    *append_cases.GROUPS,
    *inspect_cases.GROUPS,
    *encode_cases.GROUPS,
    *graph_cases.GROUPS,
    *run_cases.GROUPS,
    *joined_cases.GROUPS,
    *study_cases.GROUPS,
    *compare_cases.GROUPS,
)
_HEAD = "| what is wrong | what the user sees |"
_OPENING = """# Bad input

A mistake ends a job with exit status 2 and one line. The line names the file, the row or field, the value, the limit
and the next move. There is no traceback, and all files stay as they were. Each row below is a test
(`tests/jobs/bad_input/`): it runs the command, compares the line with this page letter by letter, and compares all
inputs and outputs byte by byte. `/data` stands for the folder with the files, `<fingerprint>` for a checksum. If you
change a message, run

```
python -m tests.jobs.bad_input.document
```

which runs all commands again and rewrites this page. Then read the changes.

Before any worker starts, jobs read every byte of a dataset and a graph and compare its checksum with the manifest.
Workers do not check again. So a bit that changes while a job runs goes unnoticed.
"""


def page(say: Callable[[Case], str]) -> str:
    """Return the text of the page; `say` gives the message of each case."""
    parts = [_OPENING]
    for group in GROUPS:
        rows = [f"| {case.what} | {_escaped(say(case))} |" for case in group.cases]
        parts.append("\n".join([f"## {group.title}", "", _HEAD, "|---|---|", *rows, ""]))
    return "\n".join(parts)


def messages_on(text: str) -> dict[tuple[str, str], str]:
    """Return the messages of a page, by heading and mistake."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, table = section.partition("\n")
        for what, _, message in re.findall(r"^\| (.+?) \| (`+ ?)(.+?) ?`+ \|$", table, flags=re.M):
            found[title, what] = message.replace("\\|", "|")
    return found


def _escaped(message: str) -> str:
    code = f"`` {message} ``" if "`" in message else f"`{message}`"
    return code.replace("|", "\\|")


def main() -> None:
    """Run every command and rewrite the page."""
    # A command must print one line, and warnings of libraries would be further lines. In tests, pytest catches them.
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings(action="ignore"), without_a_cluster():
        here, sound = Path(root) / "here", Path(root) / "sound"
        here.mkdir()
        make_world(here)
        shutil.copytree(here, sound)
        PAGE.write_text(page(lambda case: _message(case, here, sound)))


def _message(case: Case, here: Path, sound: Path) -> str:
    restore(here, sound)
    return message_of(run_case(case, here)[1])


if __name__ == "__main__":
    main()
