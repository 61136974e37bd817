"""The report as text and as a page: well-formed, loads nothing, and data never becomes markup or moves a cursor."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess

import pytest

from experiments.inspection.facts import Bar
from experiments.inspection.inspect import inspect_dataset
from experiments.inspection.origin import origin
from experiments.inspection.page import GENERATOR, page
from experiments.inspection.pictures import bar_picture, curve_picture
from experiments.inspection.text import text
from experiments.inspection.wording import as_date, in_words, number, share
from experiments.page.document import is_page
from tests.experiments.inspection.planted import healthy_parts, written
from tests.experiments.test_case_page import HOSTILE, SPECIAL, Checker

STORABLE = HOSTILE.replace("\ud800", "")  # Parquet holds UTF-8, which has no surrogates
CURSOR = "\x1b[2J\r\u200f\u2067"


@pytest.fixture
def hostile(tmp_path):
    """Facts in which every text from data is hostile."""
    parts = healthy_parts()
    parts["user_ids"] = [f"u{user}{SPECIAL}{CURSOR}" for user in range(len(parts["user_ids"]))]
    parts["item_ids"] = [f"i{item}{SPECIAL}{CURSOR} " for item in range(len(parts["item_ids"]))]
    parts["texts"] = [STORABLE] * len(parts["texts"])
    parts["source"] = {"path": f"/x{SPECIAL}{CURSOR}", "max_history": SPECIAL}
    parts["dropped"] = {f"why{SPECIAL}": 3, "truncated_interactions": 7}
    data = written(tmp_path / "dataset", parts)
    data.manifest["modalities"]["image"]["encoder"] = {f"name{SPECIAL}": SPECIAL + CURSOR}
    data.manifest["split"] = {"method": f"mine{SPECIAL}"}
    return inspect_dataset(data)


def test_the_page_is_well_formed_loads_nothing_and_escapes_all_data(hostile):
    shown = page(hostile)
    found = Checker(shown)
    assert set(found.kinds) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "section", "div", "bdi", "code", "ul", "li",
        "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "text", "line",
        "rect", "circle",
    }  # fmt: skip
    assert {key for key, _ in found.attributes} <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "title", "scope", "viewbox", "role", "aria-label",
        "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "text-anchor",
    }  # fmt: skip
    for forbidden in ("http://", "https://", "url(", "@import", "<script", "src=x>", "\x00", "\u202e", "\x1b", "href"):
        assert forbidden not in shown
    assert shown.count("<style>") == 1
    assert shown.count("</style>") == 1
    assert is_page(shown[:1000], GENERATOR)
    assert not is_page(shown[:1000], "mdsrec case study")
    said = "".join(found.text)
    for part in (*(one.what for one in hostile.surprises), "the longest history", "Encoder of image", "mine</style>"):
        assert part.replace("\x1b", "\ufffd").replace("\x00", "\ufffd").replace("\u202e", "\ufffd") in said


def test_no_data_moves_the_terminals_cursor(hostile):
    said = text(hostile)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", said)
    assert f"u0{SPECIAL}" not in said or "\ufffd[2J\ufffd" in said
    for one in hostile.surprises:
        assert one.next_move.split()[0] in said


def test_joined_emoji_and_letters_and_spaces_of_other_scripts_stay_readable_in_a_terminal(tmp_path):
    parts = healthy_parts()
    family, heart, persian = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "\u0645\u06cc\u200c\u062e"
    parts["texts"] = [f"{family} {heart} {persian} a\u00a0b\u3000c\u202ed {item}" for item in range(50)]
    said = text(inspect_dataset(written(tmp_path / "dataset", parts)))
    assert f"{family} {heart} {persian} a b c\ufffdd" in said


def test_page_and_text_say_the_same(tmp_path):
    facts = inspect_dataset(written(tmp_path / "dataset", healthy_parts()))
    in_page = " ".join(" ".join(Checker(page(facts)).text).split())
    in_text = " ".join(text(facts).split())
    for part in (
        "Nothing stands out.",
        "Leave-one-out: the last item of each user is for test",
        "Prepared from x.csv.",
        "rows that repeat user, item and timestamp of an earlier row",
        "with fewer than 5 (k-core)",
        "They are in seconds, as the size of most numbers tells.",
        "of these gaps are zero",
        "50 items (100%) have a text, of which 50 are different.",
        "a typical history: its length is the median",
        f"{facts.num_interactions:,}",
    ):
        assert part in in_page, part
        assert part in in_text, part


def test_a_grown_dataset_says_from_which_it_has_grown(tmp_path):
    parts = healthy_parts()
    april = {"path": "APRIL", "fingerprint": "0", "num_users": 20, "num_items": 30}
    may = {"path": "MAY", "fingerprint": "1", "num_users": 60, "num_items": 40, "appended_to": april}
    june = parts["source"] | {"path": ["june-1.csv", "june-2.csv"], "appended_to": may}
    facts = inspect_dataset(written(tmp_path / "dataset", parts | {"source": june}))
    said = (
        "Grown from the dataset MAY, which had 60 of these users and 40 of these items, by interactions from "
        "june-1.csv and june-2.csv. That one had grown from APRIL. A target is"
    )
    for shown in (" ".join(Checker(page(facts)).text), text(facts)):
        assert said in " ".join(shown.split())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": "x.csv"}, "Prepared from x.csv."),
        ({"path": ["x.csv", "y.csv"]}, "Prepared from x.csv and y.csv."),
        ({"format": "synthetic"}, "Prepared with --format synthetic."),
        ({"appended_to": "?"}, "Prepared, the manifest does not say from what."),
        (
            {"appended_to": {"path": "MAY"}},
            "Grown from the dataset MAY, by interactions from files that are not stated.",
        ),
        (
            {"path": "x", "appended_to": {"path": "C", "appended_to": {"path": "B", "appended_to": {"path": "A"}}}},
            "Grown from the dataset C, by interactions from x. That one had grown in 2 steps from A.",
        ),
    ],
)
def test_the_origin_is_what_the_manifest_states(source, said):
    assert origin(source) == said


_MEASURE = """<script>
const boxes = [...document.querySelectorAll(".scroll")];
document.body.textContent = JSON.stringify({
  page: [document.documentElement.scrollWidth, innerWidth],
  boxes: boxes.map(box => [box.scrollWidth, box.clientWidth]),
  right: Math.max(...boxes.map(box => box.getBoundingClientRect().right)),
});
</script></body>"""


@pytest.mark.long
@pytest.mark.parametrize("width", [1000, 500])
def test_no_table_runs_past_the_edge_of_a_browsers_window(tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    parts = healthy_parts()
    parts["texts"] = [f"{one} {'with many words ' * 9}" for one in parts["texts"]]
    parts["item_ids"] = [f"i{item}-{'0123456789abcdef' * 4}" for item in range(len(parts["item_ids"]))]
    shown = page(inspect_dataset(written(tmp_path / "dataset", parts)))
    # The page itself allows no script.
    shown = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", shown).replace("</body>", _MEASURE)
    (tmp_path / "page.html").write_text(shown, encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    command = [chromium, *arguments, f"--window-size={width},800", (tmp_path / "page.html").as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(re.search(r"\{.*\}", dumped.partition("<body>")[2]).group())
    assert found["page"] == [width, width]
    assert found["right"] <= width
    assert len(found["boxes"]) > 8
    if width == 1000:
        assert all(content <= box for content, box in found["boxes"]), found


def test_the_split_by_time_and_missing_parts_are_told(tmp_path):
    data = written(tmp_path / "dataset", healthy_parts() | {"texts": None, "features": None, "dropped": {}})
    data.manifest["split"] = {"method": "global-time", "valid_from": 1_600_000_000, "test_from": 1_610_000_000}
    said = " ".join(text(inspect_dataset(data)).split())
    assert "Split by time: validation begins at 2020-09-13, test at 2021-01-07." in said
    assert "Preparation dropped nothing." in said
    untimed = inspect_dataset(written(tmp_path / "untimed", healthy_parts() | {"times": None}))
    assert "has no timestamps" in text(untimed)
    assert "has no timestamps" in page(untimed)
    assert dataclasses.asdict(untimed)["times"] is None


def test_bars_are_as_high_as_their_counts():
    picture = bar_picture([Bar(label="a", count=1), Bar(label="b", count=4), Bar(label="c", count=0)])
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', picture)]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.2)
    assert heights[2] == 0
    assert heights[1] == 240 - 42 - 12  # the highest bar takes all the room
    assert "b: 4" in picture
    many = bar_picture([Bar(label=f"2020-{n:03}", count=n) for n in range(300)])
    assert many.count("<rect") == 300
    assert 3 < many.count("2020-") - 300 < 30  # each has a hover text, and some have a label


def test_points_fall_on_a_line_in_a_picture_with_logarithmic_axes():
    picture = curve_picture([(1, 10_000), (10, 1000), (100, 100), (1000, 10), (5000, 0)], "x", "y")
    across = [float(place) for place in re.findall(r'cx="([\d.]+)"', picture)]
    down = [float(place) for place in re.findall(r'cy="([\d.]+)"', picture)]
    assert len(across) == 4
    assert across[1] - across[0] == pytest.approx(across[3] - across[2], abs=0.2)
    assert down[1] - down[0] == pytest.approx(down[3] - down[2], abs=0.2)


def test_numbers_in_words():
    assert [share(value) for value in (0, 1e-6, 0.0123, 0.5, 0.9999999, 1)] == [
        "0%", "under 0.1%", "1.23%", "50%", "over 99.9%", "100%",
    ]  # fmt: skip
    assert [number(value) for value in (3, 12_345, 0.12345, 1234.5)] == ["3", "12,345", "0.123", "1,234"]
    assert as_date(1_600_000_000_000, "ms") == "2020-09-13"
    assert as_date(1_600_000_000, "s", with_time=True) == "2020-09-13 12:26:40"
    assert as_date(-1, "s") == "1969-12-31"
    assert as_date(2**62, "s") == f"{2**62:,}"
    assert as_date(17, None) == "17"
    assert in_words(90_000, "s") == "1.04 days"
    assert in_words(90_000, "ms") == "1.5 minutes"
    assert in_words(0.25, "s") == "0.25 seconds"
    assert in_words(90_000, None) == "90,000"
    assert [in_words(value, "s") for value in (1, 60, 3600, 86_400, 31_557_600, 2)] == [
        "1 second", "1 minute", "1 hour", "1 day", "1 year", "2 seconds",
    ]  # fmt: skip
    assert in_words(1.004, "s") == "1 second"


@pytest.mark.parametrize(
    ("cold", "words"),
    [
        ({"share": 0.1, "seed": 0, "count": 15}, "15 items are cold"),
        ({"count": 1}, "1 item is cold"),
        ({"count": "many"}, None),
        ("all of them", None),
        (None, None),
    ],
)
def test_items_that_preparation_kept_out_of_training_are_counted(tmp_path, cold, words):
    data = written(tmp_path / "dataset", healthy_parts())
    data.manifest["split"] = {"method": "leave-one-out", "cold_items": cold}
    said = " ".join(text(inspect_dataset(data)).split())
    assert ("cold" in said) == (words is not None)
    assert words is None or words in said
