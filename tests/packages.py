"""The packages of the product, for tests that read all of its source."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = (
    "contracts", "configs", "storage", "kernels", "data", "graph_builder", "model", "evaluation", "distributed",
    "experiments", "serving", "jobs", "mdsrec",
)  # fmt: skip
