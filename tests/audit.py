"""What PyPI knows against the packages that this project pins: python -m tests.audit

For networks where pip-audit's services cannot be reached: it asks PyPI's record of each package's latest version. A
pin that is the latest is thereby looked up; of an older one the record says nothing, and it is listed.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

_ROOT = Path(__file__).resolve().parents[1]
_PIN = re.compile(r"\b([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[a-z,0-9]+\])?==([0-9][A-Za-z0-9.]*)")


def pins() -> dict[str, str]:
    """Every pinned package and its version, from the lock and the files that pin what is not in it."""
    text = "\n".join((_ROOT / name).read_text() for name in ("constraints.txt", "pyproject.toml", "Makefile"))
    return dict(sorted(_PIN.findall(text)))


def latest(name: str) -> tuple[str, list[str]]:
    """The latest version on PyPI, and the names of what is known against it."""
    with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as answer:
        record = json.load(answer)
    return record["info"]["version"], [known["id"] for known in record["vulnerabilities"]]


def main() -> None:
    pinned = pins()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(tqdm(pool.map(latest, pinned), total=len(pinned)))
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"error: PyPI cannot be reached ({error}); nothing was audited")
    known = {name: ids for name, (_, ids) in zip(pinned, found, strict=True) if ids}
    older = [f"{n} {v} (now {new})" for (n, v), (new, _) in zip(pinned.items(), found, strict=True) if v != new]
    print(f"{len(pinned)} packages, {len(pinned) - len(older)} pinned at their latest version")
    print(f"known against the latest: {known or 'nothing'}")
    print(f"older than the latest, so not looked up: {', '.join(older) or 'none'}")
    sys.exit(bool(known))


if __name__ == "__main__":
    main()
