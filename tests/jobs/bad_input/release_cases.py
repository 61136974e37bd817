"""Cases of bad input for the formats of public datasets: wrong files, presets, separators, encodings and times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.data import release_files as release
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import Damage, array, both, move, remove, replace, write

_ALL = "--min-user-interactions 1 --min-item-interactions 1"


def _command(kind: str, file: str = "") -> str:
    return f"prepare_data --format {kind} --input {{here}}/raw/{file} --output {{here}}/out {_ALL}"


def _made(make: Callable[[Path], object], *damages: Damage) -> Damage:
    """Make the files of a release in the folder `raw`, and damage them."""

    def spoil(here: Path) -> None:
        (here / "raw").mkdir()
        make(here / "raw")

    return both(spoil, *damages)


def _decoded(make: Callable[[Path], object], name: str) -> Damage:
    """Make the files of a release, and write one of them again in Latin-1, with an accent."""

    def spoil(here: Path) -> None:
        text = (here / "raw" / name).read_text().replace("u1", "José")
        (here / "raw" / name).write_bytes(text.encode("latin-1"))

    return _made(make, spoil)


def _lists(text: str) -> Damage:
    """Write a file called x.txt."""
    return _made(lambda raw: (raw / "x.txt").write_text(text))


_KAGGLE = "user;item;rating;timestamp\n1;2;5;978300019\n"
_MIND_ISO = "1\tU1\t2019-11-11 09:05:58\tN40\tN1-1 N2-0\n"
_MIND_TEST = "1\tU1\t11/11/2019 9:05:58 AM\tN40\tN1 N2\n"
_UNITS = "B00YQ6X8EO,A1YJEY40YUW4SE,5.0,1588687728\nB00YQ6X8EO,A60XNB876KYML1,5.0,1588687728000\n"
_BEAUTY = "raw/All_Beauty.csv"

RELEASES = Group(
    "jobs/prepare_data.py: files of public datasets",
    (
        Case("MovieLens's ratings as amazon2018", _command("amazon2018", "ratings.csv"), _made(release.movielens_csv)),
        Case("Amazon's ratings of 2018 as amazon2023", _command("amazon2023"), _made(release.amazon2018_ratings)),
        Case("Amazon's reviews of 2023 as amazon2018", _command("amazon2018"), _made(release.amazon2023)),
        Case("a RecBole file as mmrec", _command("mmrec"), _made(release.recbole)),
        Case(
            "the metadata as interactions",
            _command("amazon2023", "meta_All_Beauty.jsonl.gz"),
            _made(release.amazon2023),
        ),
        Case(
            "the reviews as metadata",
            f"{_command('amazon2023')} --items {{here}}/raw/All_Beauty.jsonl.gz",
            _made(release.amazon2023),
        ),
        Case(
            "metadata that describes none of the items",
            f"{_command('amazon2018')} --items {{here}}/movies.csv",
            _made(release.amazon2018_ratings, write("movies.csv", "asin,title\nB000000001,Toy Story\n")),
        ),
        Case(
            "Amazon's ratings of 2014, which have the user first",
            _command("amazon2018"),
            _made(release.amazon2018_ratings, write(_BEAUTY, "A1YJEY40YUW4SE,B00YQ6X8EO,5.0,1369699200\n")),
        ),
        Case(
            "ratings of 2014 by their name",
            _command("amazon2018", "ratings_Beauty.csv"),
            _made(release.amazon2018_ratings, write("raw/ratings_Beauty.csv", "u1,i1,5.0,1369699200\n")),
        ),
        Case(
            "a part of Amazon's split is missing",
            _command("amazon2023"),
            _made(release.amazon2023_ratings, remove("raw/All_Beauty.valid.csv")),
        ),
        Case(
            "Amazon's ratings with and without a split",
            _command("amazon2023"),
            _made(release.amazon2023_ratings, write(_BEAUTY, "user_id,parent_asin,rating,timestamp\n")),
        ),
        Case("a table with a header as lists", _command("lists", "x.txt"), _lists("user,item,timestamp\n1,2,3\n")),
        Case("a table without a header as lists", _command("lists", "x.txt"), _lists("u1,i1,1\nu2,i1,2\n")),
        Case("lists with commas", _command("lists", "x.txt"), _lists("1, 2, 3\n2, 3, 4\n")),
        Case("lists of one word a line", _command("lists", "x.txt"), _lists("u1\nu2\n")),
        Case(
            "Amazon's metadata of 2014, in Python's notation",
            _command("amazon2018"),
            _made(
                release.amazon2018_ratings,
                lambda here: release.amazon2014_metadata(here / "raw" / "meta_All_Beauty.json.gz"),
            ),
        ),
        Case(
            "ratings with tabs",
            _command("amazon2018"),
            _made(release.amazon2018_ratings, replace(_BEAUTY, ",", "\t", -1)),
        ),
        Case(
            "ratings in seconds and milliseconds",
            _command("amazon2018"),
            _made(release.amazon2018_ratings, write(_BEAUTY, _UNITS)),
        ),
        Case(
            "no metadata for --title-column",
            f"{_command('amazon2018')} --title-column brand",
            _made(release.amazon2018_ratings, remove("raw/meta_All_Beauty.json.gz")),
        ),
        Case(
            "a --title-column that the metadata lacks",
            f"{_command('amazon2018')} --title-column store",
            _made(release.amazon2018_ratings),
        ),
        Case("tags of MovieLens", _command("movielens", "tags.csv"), _made(release.movielens_csv)),
        Case(
            "a MovieLens folder without ratings",
            _command("movielens"),
            _made(release.movielens_csv, remove("raw/ratings.csv")),
        ),
        Case(
            "ratings of MovieLens with semicolons",
            _command("movielens", "ratings.csv"),
            _made(release.movielens_csv, write("raw/ratings.csv", _KAGGLE)),
        ),
        Case(
            "ratings of MovieLens with one colon",
            _command("movielens"),
            _made(release.movielens_dat, replace("raw/ratings.dat", "::", ":", -1)),
        ),
        Case(
            "Latin-1 in a table of another dataset",
            _command("table", "yelp.jsonl"),
            _decoded(
                lambda raw: (raw / "yelp.jsonl").write_text('{"user": "u1", "item": "b1", "timestamp": 978300019}\n'),
                "yelp.jsonl",
            ),
        ),
        Case(
            "Latin-1 in a .item of RecBole",
            _command("recbole"),
            _made(
                release.recbole,
                lambda here: (here / "raw" / "ml-100k.item").write_bytes(
                    "item_id:token\ttitle:token_seq\n1\tCité\n".encode("latin-1")
                ),
            ),
        ),
        Case(
            "MMRec's file with commas",
            _command("mmrec"),
            _made(release.mmrec, replace("raw/baby.inter", "\t", ",", -1)),
        ),
        Case(
            "a fourth part of MMRec's split",
            _command("mmrec"),
            _made(release.mmrec, replace("raw/baby.inter", "1388275200\t2", "1388275200\t3")),
        ),
        Case(
            "MMRec's file without its split",
            _command("mmrec"),
            _made(release.mmrec, replace("raw/baby.inter", "x_label", "label")),
        ),
        Case(
            "fewer rows of features than MMRec's items",
            _command("mmrec"),
            _made(release.mmrec, array("raw/image_feat.npy", lambda rows: rows[:3])),
        ),
        Case(
            "a dictionary for features of MMRec",
            f"{_command('mmrec')} --features image={{here}}/raw/user_graph_dict.npy",
            _made(release.mmrec),
        ),
        Case(
            "MIND's test set, which has no labels",
            _command("mind"),
            _made(release.mind, write("raw/MINDsmall_dev/behaviors.tsv", _MIND_TEST)),
        ),
        Case(
            "MIND's times as ISO dates",
            _command("mind", "MINDsmall_dev"),
            _made(release.mind, write("raw/MINDsmall_dev/behaviors.tsv", _MIND_ISO)),
        ),
        Case("MIND's news as interactions", _command("mind", "MINDsmall_dev/news.tsv"), _made(release.mind)),
        Case(
            "a folder without behaviors.tsv",
            _command("mind", "MINDsmall_dev"),
            _made(release.mind, move("raw/MINDsmall_dev/behaviors.tsv", "raw/x.tsv")),
        ),
        Case(
            "MIND's rows without their impressions",
            _command("mind", "MINDsmall_dev"),
            _made(release.mind, replace("raw/MINDsmall_dev/behaviors.tsv", "\tN1-1 N40-0", "")),
        ),
        Case(
            "fractions of seconds as timestamps, as KuaiRec's",
            f"{_command('table', 'big_matrix.csv')} --user-column user_id --item-column video_id",
            _made(release.kuairec),
        ),
    ),
)
GROUPS = (RELEASES,)
