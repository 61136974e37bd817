"""docs/bad-input.md: written from the cases, and read back by the test that they are still true.

python -m tests.jobs.bad_input.document      types every command anew and rewrites the page
"""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.fingerprints import restore
from tests.jobs.bad_input import feature_cases, graph_cases, prepare_cases, run_cases, study_cases
from tests.jobs.bad_input.case import Case, Group, message_of, run_case, without_a_cluster
from tests.jobs.bad_input.world import make_world

PAGE = Path(__file__).resolve().parents[3] / "docs" / "bad-input.md"
GROUPS: tuple[Group, ...] = (
    *prepare_cases.GROUPS,
    *feature_cases.GROUPS,
    *graph_cases.GROUPS,
    *run_cases.GROUPS,
    *study_cases.GROUPS,
)
_HEAD = "| what is wrong | what the user sees |"
_OPENING = """# Bad input

What a person gets for a mistake: one line that names the file, row or field, the value, the limit and the next move,
exit status 2, no traceback, and every file as it was before. Each row below is a test (`tests/jobs/bad_input/`): the
command is typed, the line is compared with this page letter by letter, and all inputs and outputs byte by byte. `/data`
stands for the folder with the files, `<fingerprint>` for a checksum. After a change of a message,

```
python -m tests.jobs.bad_input.document
```

types all commands again and rewrites this page; read what it changed.

Jobs read every byte of a dataset and a graph once, before any worker starts, and compare with the checksums in the
manifests; workers only map what has been checked. Bits that change while a job runs go unnoticed.
"""


def page(say: Callable[[Case], str]) -> str:
    """The page, with what `say` tells of each case."""
    parts = [_OPENING]
    for group in GROUPS:
        rows = [f"| {case.what} | {_escaped(say(case))} |" for case in group.cases]
        parts.append("\n".join([f"## {group.title}", "", _HEAD, "|---|---|", *rows, ""]))
    return "\n".join(parts)


def messages_on(text: str) -> dict[tuple[str, str], str]:
    """Heading and mistake to message, of a page."""
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
    """Type every command and rewrite the page."""
    # A library's warning would stand beside the one line that a command prints. pytest keeps those from the tests.
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
