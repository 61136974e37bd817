"""Makes the content of a dataset from source files: chooses the reader, runs the steps, counts what was dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from contracts.errors import InputError
from data.formats.presets import PRESETS
from data.formats.read_options import OPTION_NAMES, ReadOptions
from data.formats.source import InteractionSource
from data.formats.unisrec import read_unisrec
from data.prepare.cold import ColdRule, held_out, with_cold
from data.prepare.described_items import described_items
from data.prepare.engine.plan import Rules
from data.prepare.engine.workplace import Workplace, prepared
from data.prepare.feature_files import detect_features
from data.prepare.features import read_features
from data.prepare.growth.growth import Growth
from data.prepare.split import SplitRule
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from data.writing import DatasetContent, FeatureRows


@dataclass(frozen=True, kw_only=True)
class RawOptions:
    """Options for turning raw interactions into sequences.

    Attributes:
        min_user_interactions: fewest interactions of a user in the k-core that is kept; 1: no limit.
        min_item_interactions: fewest interactions of an item in it; 1: no limit.
        max_history: number of most recent interactions that are kept of each user, before the split; None: all.
        split: the rule for training, validation and test.
        hold_back: whether the rows that the k-core removes are written to held_back.parquet.
        cold: which items are held out of training; None: none.
    """

    min_user_interactions: int = 5
    min_item_interactions: int = 5
    max_history: int | None = None
    split: SplitRule = field(default_factory=SplitRule)
    hold_back: bool = False
    cold: ColdRule | None = None

    def check(self) -> None:
        """Raise InputError if a number is below 1 or the options of the split contradict each other."""
        for name in ("min_user_interactions", "min_item_interactions", "max_history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        self.split.check()


def unisrec_content(path: str, features: Mapping[str, str], ids_files: Mapping[str, str]) -> DatasetContent:
    """Return the content of a UniSRec folder, with its own feature files unless `features` names others.

    Raises:
        InputError: see `formats.unisrec` and `features`.
    """
    data = read_unisrec(path)
    files = dict(features) or detect_features(data.folder, data.name)
    # Without an index file, items are numbered by the source only if their tokens are 0..max.
    rows_are_items = data.source["numbering_of_items"] != "order of first appearance"
    aligned, unknown = read_features(files, ids_files, data.item_source_ids, rows_are_items)
    return DatasetContent(
        sequences=data.sequences,
        user_source_ids=data.user_source_ids,
        item_source_ids=data.item_source_ids,
        item_texts=data.item_texts,
        features=aligned,
        split={"method": "leave-one-out", "given_by": "the source's files"},
        source=data.source | {"path": path, "features": files},
        dropped=data.dropped | unknown,
    )


@contextmanager
def raw_content(
    source: InteractionSource,
    options: RawOptions,
    features: Mapping[str, str],
    ids_files: Mapping[str, str],
    place: Workplace,
    *,
    rows_are_numbers: bool = False,
    growth: Growth | None = None,
) -> Iterator[DatasetContent]:
    """Yield the content of raw interactions. Some of it is in work files, which exist within this context.

    These are the steps. Rows with a null or empty value, and exact duplicates, are removed. The k-core is kept. Users
    and items are numbered in order of first appearance. Each user's interactions are sorted by time; ties keep their
    input order. The most recent are kept. Sequences are split, or keep the split of the source. Interactions of cold
    items are dropped from the training parts.

    With `rows_are_numbers`, row r of a .npy file belongs to the item whose source id is the number r. With `growth`,
    the rows of an earlier dataset come first.

    Raises:
        InputError: see `engine.workplace.prepared`, `described_items`, `features` and `growth`; or options contradict
            each other.
    """
    options.check()
    own = {option.name: getattr(options, option.name) for option in fields(options)}
    known = growth.known_ids() if growth else None
    source = growth.joined(source) if growth else source
    with prepared(source, Rules(**own), place, known) as found:
        item_ids = found.item_ids.collected()
        texts, columns, unknown_items = described_items(source, item_ids)
        aligned, unknown = read_features(
            features, ids_files, item_ids, rows_are_items=False, rows_are_numbers=rows_are_numbers
        )
        rows: Mapping[str, FeatureRows] = aligned
        if growth:
            texts, columns = growth.items(texts, columns, len(item_ids))
            rows, unused = growth.features(aligned, len(item_ids))
            unknown |= unused
        unit = found.time_kind.named_unit if found.time_kind is not None else None
        parameters = dict(source.parameters)
        described = {name: parameters.pop(name) for name in ("format", "path")} | {"features": dict(features)}
        del own["split"], own["cold"]
        if not options.hold_back:
            del own["hold_back"]
        yield DatasetContent(
            sequences=found.sequences,
            user_source_ids=found.user_ids,
            item_source_ids=found.item_ids,
            item_texts=texts,
            item_columns=columns if found.cold is None else with_cold(columns, found.cold),
            features=rows,
            split=found.split,
            source=described | own | parameters | ({"timestamp_unit": unit} if unit else {}),
            dropped=found.dropped | unknown_items | unknown,
            held_back=found.held_back,
        )


_COLD_OPTIONS = {"cold_item_share", "seed"}
_RAW_OPTIONS = {field.name for field in (*fields(RawOptions), *fields(SplitRule))} - {"method", "cold"} | _COLD_OPTIONS
_SYNTHETIC_OPTIONS = {"num_users", "num_items", "shared_interests"} | _COLD_OPTIONS
# The options of each format.
ALLOWED = {
    "unisrec": _COLD_OPTIONS,
    **{name: _RAW_OPTIONS | preset.options for name, preset in PRESETS.items()},
    "synthetic": _SYNTHETIC_OPTIONS,
}
FORMATS = tuple(ALLOWED)
# Formats that are not raw interactions, so that there is nothing to prepare in parts.
WITHOUT_ENGINE = ("unisrec", "synthetic")


@contextmanager
def content_of(
    kind: str,
    path: str | Sequence[str] | None,
    *,
    features: Mapping[str, str],
    ids_files: Mapping[str, str],
    options: Mapping[str, Any],
    place: Workplace,
    growth: Growth | None = None,
) -> Iterator[DatasetContent]:
    """Yield the content for the options of a command line. Some of it may exist within this context only.

    Args:
        kind: the format.
        path: the input, several inputs, or None.
        features: the feature file of each modality.
        ids_files: the ids file of each modality that has one.
        options: further options, only those that were given.
        place: where raw interactions are prepared.
        growth: the dataset that they are appended to; None: there is none.

    Raises:
        InputError: the format does not take an option, the input is missing, or its reader refuses it.
    """
    assert kind in ALLOWED, kind
    for name in options:
        if name not in ALLOWED[kind]:
            takers = ", ".join(other for other, allowed in ALLOWED.items() if name in allowed)
            raise InputError(
                f"--{name.replace('_', '-')}: is not an option of --format {kind}, only of {takers}; leave it out"
            )
    paths = [path] if isinstance(path, str) else [*(path or ())]
    rule, options = _cold_rule(kind, options)
    if kind == "synthetic":
        if paths or features or ids_files:
            raise InputError("--format synthetic makes its own data; leave --input and --features out")
        content = synthetic_content(SyntheticSpec(**options))
        yield held_out(content, rule) if rule is not None else content
        return
    if not paths:
        raise InputError(f"--format {kind}: needs --input")
    if kind == "unisrec":
        if len(paths) > 1:
            raise InputError(f"--input: --format unisrec reads one folder, not {len(paths)}; name one")
        content = unisrec_content(paths[0], features, ids_files)
        yield held_out(content, rule) if rule is not None else content
        return
    read = {name: value for name, value in options.items() if name in OPTION_NAMES}
    preset = PRESETS[kind]
    own = {name: value for name, value in options.items() if name not in OPTION_NAMES}
    raw = replace(_raw_options({**preset.defaults, **own}), cold=rule)
    source = preset.source(paths, _read_options(read))
    if source.looked_for:
        print(
            f"no titles: found no {' or '.join(source.looked_for[:3])}; --items names a file that has them", flush=True
        )
    if "split" in options:  # the user's rule takes the place of the source's own split
        source = replace(source, columns={role: name for role, name in source.columns.items() if role != "split"})
    numbered = preset.features
    files = features if features or numbered is None else numbered(paths)
    with raw_content(
        source, raw, files, ids_files, place, rows_are_numbers=numbered is not None, growth=growth
    ) as content:
        yield content


def _cold_rule(kind: str, options: Mapping[str, Any]) -> tuple[ColdRule | None, Mapping[str, Any]]:
    """Return which items are held out of training, and the options that are left. A synthetic catalogue has the seed.

    Raises:
        InputError: a value is outside its range, or there is a seed and nothing that it decides.
    """
    taken = _COLD_OPTIONS if kind != "synthetic" else {"cold_item_share"}
    left = {name: value for name, value in options.items() if name not in taken}
    if "cold_item_share" not in options:
        if "seed" in options and "seed" not in left:
            raise InputError("--seed: belongs to --cold-item-share; add it or leave this out")
        return None, left
    rule = ColdRule(share=options["cold_item_share"], seed=options.get("seed", 0))
    rule.check()
    return rule, left


def _read_options(options: Mapping[str, Any]) -> ReadOptions:
    """Return the options of reading; one text is taken for an option that may be repeated.

    An empty text and "none" mean the same as an option that was not given. --append needs them to leave out OLD's.
    """
    several: dict[str, tuple[str, ...] | None] = {
        name: (value,) if isinstance(value, str) else tuple(value)
        for name, value in options.items()
        if name in ("keep", "title_column")
    }
    if several.get("keep") in (("none",), ("",)):
        several["keep"] = ()
    if options.get("time_format") in ("none", ""):
        several["time_format"] = None
    return ReadOptions(**{**options, **several})


def _raw_options(options: Mapping[str, Any]) -> RawOptions:
    rule = {name: value for name, value in options.items() if name.startswith(("valid_", "test_"))}
    method = options.get("split", "leave-one-out")
    if rule and method != "global-time":
        raise InputError(f"--{min(rule).replace('_', '-')}: belongs to --split global-time; add it or leave this out")
    own = {name: value for name, value in options.items() if name not in rule and name != "split"}
    return RawOptions(**own, split=SplitRule(method=method, **rule))
