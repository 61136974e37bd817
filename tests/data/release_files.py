"""Small files in the exact shapes of public releases, with their quirks; each function fills a folder.

All tell the same story where the release can: user A reads x, y, z and user B reads y, x, in this order of time.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Ids as Amazon has them.
ANN, BOB = "A1YJEY40YUW4SE", "A60XNB876KYML1"
X, Y, Z = "B00YQ6X8EO", "0205616461", "B081TJ8YS3"
ROWS = (
    (ANN, Z, 5, 1588687728),
    (ANN, X, 4, 1588615855),
    (BOB, X, 2, 1589000000),
    (ANN, Y, 5, 1588615999),
    (BOB, Y, 5, 1588000000),
)
ORDER = {ANN: [X, Y, Z], BOB: [Y, X]}
TITLES = {X: 'Howard\'s 5" "Cast" & Iron', Y: None, Z: "Yucheng Ring Light"}
NEW_ANN = "AGKHLEW2SOWHNMFQIJGBECAF7INQ"


def json_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def amazon2023(folder: Path) -> Path:
    """Reviews and metadata: a review's own title, nulls, nested values, an item without metadata, one twice."""
    reviews = [
        {
            "rating": float(rating), "title": "Such a \"lovely\" scent\tbut",
            "text": "Nice.<br />Really, \"user_id\": 5",
            "images": [{"small_image_url": "https://x/1.jpg", "attachment_type": "IMAGE"}] if rating > 4 else [],
            "asin": f"{item[:-1]}9", "parent_asin": item, "user_id": user, "timestamp": time * 1000 + 70,
            "helpful_vote": 0, "verified_purchase": True,
        }
        for user, item, rating, time in ROWS
    ]  # fmt: skip
    json_lines(folder / "All_Beauty.jsonl.gz", reviews)
    described = {
        "main_category": None, "title": "Howard&#39;s 5&quot; &quot;Cast&quot;\n &amp;amp; <b>Iron</b>",
        "average_rating": 4.8, "rating_number": 10, "features": [], "description": ["A", "B"], "price": None,
        "images": [{"thumb": "https://x/t.jpg", "large": "https://x/l.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [], "store": "Howard Products", "categories": ["Beauty", "Hair"],
        "details": {"Brand": "H", "Pack": {"n": 1}}, "parent_asin": X, "bought_together": None,
    }  # fmt: skip
    other = {
        **described,
        "main_category": "All Beauty",
        "title": "Yucheng Ring Light",
        "price": "from 14.99",
        "parent_asin": Z,
    }
    unknown = {**other, "parent_asin": "B000000000", "details": {}}
    json_lines(folder / "meta_All_Beauty.jsonl.gz", [described, other, {**other, "title": "Again"}, unknown])
    return folder


def amazon2023_ratings(folder: Path, *, with_history: bool = False) -> Path:
    """The files of a leave-last-out split, with or without the column history."""
    rows = sorted(ROWS, key=lambda row: (row[0], row[3]))
    for part, chosen in (("train", [rows[0]]), ("valid", [rows[1], rows[3]]), ("test", [rows[2], rows[4]])):
        lines = ["user_id,parent_asin,rating,timestamp" + ",history" * with_history]
        for user, item, rating, time in chosen:
            past = " ".join(row[1] for row in rows if row[0] == user and row[3] < time)
            lines.append(f"{user},{item},{float(rating)},{time}123" + f",{past}" * with_history)
        (folder / f"All_Beauty.{part}.csv").write_text("\n".join(lines) + "\n")
    return folder


def amazon2018_metadata(file: Path) -> Path:
    """Metadata with a script for a title, HTML, a row twice, and items without a title or with an empty one."""
    script = "var aPageStart = (new Date()).getTime();\nvar ue_t0=window.ue_t0||+new Date();"
    item: dict[str, Any] = {
        "category": ["All Beauty", "</span></span></span>"],
        "tech1": "",
        "brand": "Howard",
        "rank": [">#5"],
    }
    return json_lines(
        file,
        [
            {
                **item,
                "title": 'Howard&#39;s 5&quot; &quot;Cast&quot; &amp; <span class="a">Iron</span>',
                "asin": X,
                "price": "$5.00",
            },
            {**item, "title": "A second row of the same item", "asin": X, "details": {"ASIN: ": X}},
            {**item, "title": script, "asin": Y, "similar_item": ' class="a-bordered" '},
            {**item, "title": "Yucheng Ring Light", "asin": Z, "imageURL": ["https://x/1.jpg"]},
        ],
    )


def amazon2018_ratings(folder: Path) -> Path:
    (folder / "All_Beauty.csv").write_text(
        "".join(f"{item},{user},{rating}.0,{time}\n" for user, item, rating, time in ROWS)
    )
    amazon2018_metadata(folder / "meta_All_Beauty.json.gz")
    return folder


def amazon2018_reviews(folder: Path) -> Path:
    reviews = [
        {
            "overall": float(rating), "verified": True, "reviewTime": "05 4, 2020", "reviewerID": user, "asin": item,
            **({"style": {"Size:": " 4 oz"}, "vote": "2"} if rating > 4 else {}), "reviewerName": None,
            "reviewText": "great\\n", "summary": "<b>5</b>", "unixReviewTime": time,
        }
        for user, item, rating, time in ROWS
    ]  # fmt: skip
    json_lines(folder / "All_Beauty_5.json.gz", [*reviews, reviews[1]])  # the release holds some reviews twice
    amazon2018_metadata(folder / "meta_All_Beauty.json.gz")
    return folder


def amazon2014_metadata(file: Path) -> Path:
    file.write_bytes(gzip.compress(b"{'asin': '0205616461', 'title': \"Bobby's\", 'salesRank': {'Beauty': 5}}\n"))
    return file


MOVIES = {"1": "Toy Story (1995)", "2": "Cité des enfants perdus, La (1995)", "3": '"Great Performances" Cats (1998)'}
RATINGS = ((1, 3, 5, 978824268), (1, 1, 4, 978300019), (2, 1, 2, 978300760), (1, 2, 5, 978300719), (2, 2, 5, 978299026))
MOVIE_ORDER = {"1": ["1", "2", "3"], "2": ["2", "1"]}


def movielens_100k(folder: Path) -> Path:
    (folder / "u.data").write_text(
        "".join(f"{user}\t{item}\t{rating}\t{time - 98000000}\n" for user, item, rating, time in RATINGS)
    )
    (folder / "u1.base").write_text("1\t1\t5\t874965758\n")
    flags = "|".join("0" * 19)
    lines = [
        f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?x|{flags}\n" for item, title in MOVIES.items()
    ]
    (folder / "u.item").write_text("".join([*lines, f"267|unknown||||{flags}\n"]), "latin-1")
    (folder / "u.user").write_text("1|24|M|technician|85711\n")
    return folder


def movielens_dat(folder: Path, encoding: str = "latin-1") -> Path:
    """1M is in Latin-1, 10M in UTF-8 and has half stars."""
    half = ".5" if encoding == "utf-8" else ""
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r}{half}::{time}\n" for u, i, r, time in RATINGS))
    (folder / "movies.dat").write_text(
        "".join(f"{i}::{title}::Animation|Children's\n" for i, title in MOVIES.items()), encoding
    )
    (folder / "users.dat").write_text("1::F::1::10::48067\n")
    return folder


def movielens_csv(folder: Path) -> Path:
    rows = "".join(f"{u},{i},{r}.5,{time}\n" for u, i, r, time in RATINGS)
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")
    titles = "".join(f'{i},"{title.replace(chr(34), chr(34) * 2)}",(no genres listed)\n' for i, title in MOVIES.items())
    (folder / "movies.csv").write_text(f"movieId,title,genres\n{titles}")
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,1,funny,1\n")
    return folder


def mmrec(folder: Path) -> Path:
    """Items 0..3 (3 only has features), a split at random: item 2 is user 0's latest, but for training."""
    rows = [
        (0, 2, 5.0, 1390694400, 0),
        (0, 0, 4.0, 1388275200, 2),
        (0, 1, 4.0, 1389000000, 0),
        (0, 3, 1.0, 1370000000, 1),
    ]
    rows += [(1, 1, 5.0, 1328140800, 0), (1, 0, 5.0, 1328140800, 0), (1, 2, 3.0, 1328140900, 2)]
    lines = ["userID\titemID\trating\ttimestamp\tx_label", *("\t".join(map(str, row)) for row in rows)]
    (folder / "baby.inter").write_text("\n".join(lines) + "\n")
    vectors = np.arange(20, dtype=np.float32).reshape(5, 4) + 1
    np.save(folder / "image_feat.npy", vectors)
    np.save(folder / "text_feat.npy", -vectors[:, :3])
    np.save(folder / "user_graph_dict.npy", np.array({0: [[1], [2]]}, dtype=object), allow_pickle=True)
    (folder / "i_id_mapping.csv").write_text("asin\titemID\n" + "".join(f"B00000000{i}\t{i}\n" for i in range(4)))
    (folder / "u_id_mapping.csv").write_text("user_id\tuserID\nA1\t0\nA2\t1\n")
    return folder


NEWS = {"N1": 'Opinion: "Colin Kaepernick', "N2": "It's the 'best' of 5", "N3": None, "N40": "Best PS5 games"}


def mind(folder: Path) -> Path:
    """Training and validation folders; a user without history, an impression without a click, an unclosed quote."""
    train, dev = folder / "MINDsmall_train", folder / "MINDsmall_dev"
    train.mkdir(), dev.mkdir()
    (train / "behaviors.tsv").write_text(
        "1\tU1\t11/11/2019 9:05:58 AM\tN40 N2\tN1-1 N2-0 N3-1\n"
        "2\tU2\t11/12/2019 12:01:00 AM\t\tN3-0 N2-1\n"
        "3\tU2\t11/11/2019 12:30:00 PM\t\tN1-0\n"
        "4\tU1\t11/11/2019 9:05:57 AM\tN40 N2\tN40-1\n"
    )
    (dev / "behaviors.tsv").write_text("1\tU2\t11/15/2019 1:02:03 PM\tN2\tN1-1 N40-0\n")
    for part, chosen in ((train, ["N1", "N2", "N3"]), (dev, ["N1", "N40"])):
        rows = [f'{n}\tnews\tnewsworld\t{NEWS[n] or ""}\t"Quoted abstract\thttps://x\t[]\t[]\n' for n in chosen]
        (part / "news.tsv").write_text("".join(rows))
    return folder


def recbole(folder: Path) -> Path:
    rows = "".join(f"{u}\t{i}\t{r}\t{time}\n" for u, i, r, time in RATINGS)
    (folder / "ml-100k.inter").write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{rows}")
    items = "".join(f"{i}\t{title}\t1995\tAnimation Comedy\n" for i, title in MOVIES.items())
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    (folder / "ml-100k.item").write_text(header + items)
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\tgender:token\n1\t24\tM\n")
    return folder


def lists(folder: Path) -> None:
    (folder / "sequences.txt").write_text("1 1 2 3\n2 2 1\n")
    (folder / "items.tsv").write_text("1\tplush dr seuss cat\n2\t\n3\t7quot doll\n")


def microlens(folder: Path) -> None:
    (folder / "MicroLens-100k_pairs.csv").write_text(
        "user,item,timestamp\n" + "".join(f"{u},{i},{t}042\n" for u, i, _, t in RATINGS)
    )
    (folder / "MicroLens-100k_pairs.tsv").write_text("1\t1 2 3\n2\t2 1\n")
    titles = "".join(f'{i},"{title.replace(chr(34), chr(34) * 2)}"\n' for i, title in MOVIES.items())
    (folder / "MicroLens-100k_titles.csv").write_text(f"item,title\n{titles}")


def pixelrec(folder: Path) -> None:
    (folder / "Pixel200K.csv").write_text(
        "item_id,user_id,timestamp\n" + "".join(f"{i},{u},{t}\n" for u, i, _, t in RATINGS)
    )
    titles = "".join(f"{i},5,,0,0,0,0,0,{title},a,b\n" for i, title in list(MOVIES.items())[:1])
    (folder / "item_info.csv").write_text(
        "item_id,view_number,comment_number,thumbup_number,share_number,coin_number,favorite_number,barrage_number,"
        f"title,tag,description\n{titles}"
    )


def ninerec(folder: Path) -> None:
    (folder / "QB_pair.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, _, t in RATINGS)
    )


def yambda(folder: Path) -> None:
    kinds = (pa.uint32(), pa.uint32(), pa.uint32())
    users, items, _, times = zip(*RATINGS, strict=True)
    table = pa.table(
        {
            "uid": pa.array(users, kinds[0]),
            "timestamp": pa.array([(time - 978299026) // 5 for time in times], kinds[1]),
            "item_id": pa.array(items, kinds[2]),
            "is_organic": pa.array([1] * 5, pa.uint8()),
            "played_ratio_pct": pa.array([100, 51, 99, 130, 60], pa.uint16()),
            "track_length_seconds": pa.array([200] * 5, pa.uint32()),
        }
    )
    pq.write_table(table, folder / "listens.parquet")


def h_and_m(folder: Path) -> None:
    days = {
        978824268: "2020-09-22",
        978300019: "2018-09-20",
        978300760: "2018-09-21",
        978300719: "2018-09-22",
        978299026: "2018-09-20",
    }
    rows = "".join(f"{days[t]},0000{u},011{i},0.0508,2\n" for u, i, _, t in RATINGS)
    (folder / "transactions_train.csv").write_text(f"t_dat,customer_id,article_id,price,sales_channel_id\n{rows}")
    (folder / "articles.csv").write_text(
        'article_id,product_code,prod_name,detail_desc\n0111,0108775,Strap top,"Jersey, top"\n'
    )


def retailrocket(folder: Path) -> None:
    rows = [f"{t}123,{u},view,{i},\n" for u, i, _, t in RATINGS]
    rows += ["978824269000,1,addtocart,2,\n", "978824269500,1,transaction,2,15\n"]
    (folder / "events.csv").write_text("timestamp,visitorid,event,itemid,transactionid\n" + "".join(rows))


def kuairec(folder: Path) -> None:
    header = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    rows = [
        (1, 3, "10", "1594080000.0"),
        (1, 1, "05", "1593648300.438"),
        (2, 1, "07", "1593821100.5"),
        (1, 2, "06", "1593734700.25"),
    ]
    rows.append((2, 2, "05", "1593648300.999"))
    lines = [
        f"{u},{i},13838,10867,2020-07-{d} 00:05:00.{s.partition('.')[2]},202007{d},{s},1.27\n" for u, i, d, s in rows
    ]
    (folder / "big_matrix.csv").write_text(header + "".join(lines))


def yelp(folder: Path) -> None:
    days = {
        978824268: "2020-09-22 22:09:11",
        978300019: "2018-09-20 22:09:11",
        978300760: "2018-09-21 01:00:00",
        978300719: "2018-09-22 22:09:11",
        978299026: "2018-09-20 23:00:00",
    }
    json_lines(
        folder / "yelp_academic_dataset_review.json",
        [
            {"review_id": f"r{u}{i}", "user_id": f"u{u}", "business_id": f"b{i}", "stars": float(r),
             "useful": 0, "funny": 0, "cool": 0, "text": "If you decide\n\n\"to eat\"", "date": days[t]}
            for u, i, r, t in RATINGS
        ],
    )  # fmt: skip
    json_lines(
        folder / "yelp_academic_dataset_business.json",
        [{"business_id": "b1", "name": "Abby Rappoport &amp; Co", "categories": None,
          "attributes": {"ByAppointmentOnly": "True"}},
         {"business_id": "b2", "name": "The UPS Store", "attributes": None, "categories": "Shipping, Local"}],
    )  # fmt: skip
