"""Look up known vulnerabilities of the pinned packages on PyPI: python -m tests.audit

This is for networks where the services of pip-audit cannot be reached. It reads PyPI's record of each package's
latest version. The record lists vulnerabilities of the latest version only, so packages pinned at an older version
are listed as not looked up.
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
    """Return every pinned package and its version, from constraints.txt, pyproject.toml and the Makefile."""
    text = "\n".join((_ROOT / name).read_text() for name in ("constraints.txt", "pyproject.toml", "Makefile"))
    return dict(sorted(_PIN.findall(text)))


def latest(name: str) -> tuple[str, list[str]]:
    """Return the latest version on PyPI, and the ids of its known vulnerabilities."""
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
    print(f"known vulnerabilities of the latest versions: {known or 'none'}")
    print(f"pinned at an older version, so not looked up: {', '.join(older) or 'none'}")
    sys.exit(bool(known))


if __name__ == "__main__":
    main()
