"""docs/map.md: a line for every file of the source, from its docstring.  python docs/site/source_map.py writes it.

`make test` fails where the page is not what this would write.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import mdformat

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "map.md"
PACKAGES = (
    "mdsrec", "jobs", "experiments", "serving", "distributed", "evaluation", "model", "graph_builder", "data",
    "kernels", "storage", "configs", "contracts", "benchmarks",
)  # fmt: skip
HEAD = """# The map

A line for every source file, by package, from the top of the import order to the bottom. The lines are the
files' own first sentences; `docs/site/source_map.py` writes this page. To find the file for a change, see
[Architecture](architecture.md), "Where to change what".
"""


def first_sentence(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line, without the command that may follow its text."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """The whole page, formatted as all pages are."""
    parts = [HEAD]
    for package in PACKAGES:
        parts.append(f"## {package}\n")
        init = ROOT / package / "__init__.py"
        if init.exists():
            parts.append(f"{first_sentence(init)}\n")
        rows = [
            f"| [{path.relative_to(ROOT / package)}](../{path.relative_to(ROOT)}) | {first_sentence(path)} |"
            for path in sorted((ROOT / package).rglob("*.py"), key=lambda path: (len(path.parts), path))
            if path.name != "__init__.py"
        ]
        parts.append("| file | what it is |\n| -- | -- |\n" + "\n".join(rows) + "\n")
    options = tomllib.loads((ROOT / ".mdformat.toml").read_text())
    return mdformat.text("\n".join(parts), options=options, extensions=("gfm", "tables"))


if __name__ == "__main__":
    PAGE.write_text(page())
