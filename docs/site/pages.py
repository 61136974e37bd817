"""What the website has beside docs/*.md: the README as its front page, a page per module, and the table of contents.

Run by the mkdocs plugin "gen-files" (mkdocs.yml). Pages are made in memory; nothing is written into the checkout.
Links are written for people who read the files where they are. A link that leaves docs/ is turned into one that
works on the website: a Python file becomes the page of its module, any other file is copied into the website.
"""

import re
from pathlib import Path, PurePosixPath

import mkdocs_gen_files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "mdsrec", "jobs", "experiments", "serving", "distributed", "evaluation", "model", "graph_builder", "data",
    "kernels", "storage", "configs", "contracts",
)  # fmt: skip
GUIDES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
SECTIONS = {
    "Start": ["index", "concepts", "coming-from", "data", "encoding", "inspecting", "runs"],
    "Run": [
        "cluster",
        "reliability",
        "training",
        "transfer",
        "gpu",
        "scaling",
        "serving",
        "studies",
        "case-study",
        "graphs",
        "bad-input",
        "security",
    ],
    "Understand": ["method", "systems", "results", "architecture", "map", "glossary", "log"],
    "Change": ["contributing", "tests", "adding-a-system", "adding-a-format", "adding-a-metric", "changelog"],
}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def title(text: str) -> str:
    """The first heading of a page."""
    return next(line[2:].strip() for line in text.splitlines() if line.startswith("# "))


def on_the_website(target: str, page: PurePosixPath) -> str:
    """The address of a link's target on the website, seen from a file of the checkout (`page`, relative to it)."""
    path = (ROOT / page.parent / target).resolve()
    name = path.relative_to(ROOT).as_posix()
    if not path.exists():
        return target  # mkdocs names what is missing
    if name in GUIDES:
        return GUIDES[name]
    if name == "tests/README.md":
        return "tests.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if path.suffix == ".py":
        return f"api/{name.removesuffix('.py').removesuffix('/__init__')}.md"
    if path.is_dir():
        return f"api/{name}.md" if name in PACKAGES else target
    with mkdocs_gen_files.open(f"files/{name}", "w") as copy:
        copy.write(path.read_text())
    return f"files/{name}"


def write_page(source: Path, address: str) -> str:
    """Writes a page of prose with its links mended, and returns its title."""
    text = source.read_text()
    page = PurePosixPath(source.relative_to(ROOT).as_posix())
    with mkdocs_gen_files.open(address, "w") as file:
        file.write(LINK.sub(lambda match: on_the_website(match[1], page), text))
    return title(text)


def write_module(path: Path) -> str:
    """Writes the page of one module from its docstrings, and returns its address."""
    name = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")
    with mkdocs_gen_files.open(f"api/{name}.md", "w") as file:
        file.write(f"# {name.replace('/', '.')}\n\n::: {name.replace('/', '.')}\n")
    return f"api/{name}.md"


def main() -> None:
    pages = {f"{path.stem}.md": path for path in sorted((ROOT / "docs").glob("*.md"))}
    pages |= {GUIDES[name]: ROOT / name for name in GUIDES}
    pages["tests.md"] = ROOT / "tests" / "README.md"
    titles = {address: write_page(path, address) for address, path in pages.items()}

    contents = []
    for section, names in SECTIONS.items():
        contents.append(f"* {section}")
        contents += [f"    * [{titles.pop(f'{name}.md')}]({name}.md)" for name in names]
    if titles:
        raise SystemExit(f"error: docs/site/pages.py: SECTIONS does not list {', '.join(sorted(titles))}")
    contents.append("* API reference")
    for package in PACKAGES:
        modules = [write_module(path) for path in sorted((ROOT / package).rglob("*.py"))]
        contents.append(f"    * {package}")
        contents += [f"        * [{address[4:-3].replace('/', '.')}]({address})" for address in modules]
    with mkdocs_gen_files.open("SUMMARY.md", "w") as file:
        file.write("\n".join(contents) + "\n")


main()
