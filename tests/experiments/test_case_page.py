"""The case page is well-formed and loads nothing, and data never becomes markup."""

from html.parser import HTMLParser

import numpy as np
import pytest

from contracts.errors import InputError
from contracts.modalities import check_modality_name
from experiments.case_page.cases import CaseStudy, Item, Ranking, item_case, most_divided, user_case
from experiments.case_page.labels import channel_word, joined
from experiments.case_page.page import GENERATOR, page
from experiments.case_page.relations import COOCCURRENCE, Lists, Overlap
from experiments.case_page.user_section import axis_of
from experiments.page.document import is_page
from experiments.page.markup import VOID, element
from experiments.page.titles import title_of
from model.protocol import Channel

HOSTILE = "<script>alert(\"1\")</script> & 'onload=x' \x00\u202e\ud800 " + "word " * 40
SPECIAL = "</style><img src=x>"


class Checker(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in the right order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.kinds, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.kinds.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


ID, IMAGE = Channel("id", 1.0), Channel("image", 0.5, is_modality=True)


def name(item):
    return Item(f"i{item}{SPECIAL}", HOSTILE if item % 2 else None)


def made_up(relations=("image", "text", COOCCURRENCE), channels=(ID, IMAGE)):
    """Return the content of a page with one item and one user."""
    ids = {"image": [[-1, -1]], "text": [[1, 2]], COOCCURRENCE: [[2, 3]]}
    lists = {r: Lists(np.array(ids[r]), np.array([[0.5, 0.25]], np.float32)) for r in relations}
    views = 1 + len(channels)
    parts = np.resize([-1.0, 2.0, 0.5, -0.25, 1.0], (views, 1, 3, len(channels)))
    best = np.tile(np.array([3, 9, -1]), (views, 1))[:, None, :]
    ranking = Ranking(
        users=np.array([0]),
        positions=np.array([25]),
        targets=np.array([9]),
        ranks=np.full((views, 1), 2),
        best=best,
        best_parts=parts,
        target_parts=parts[0, :, 1],
    )
    cases = [item_case(0, name(0), 1234, lists, {"image"}, name)] if relations else []
    user = user_case(0, f"u{SPECIAL}", ranking, [*range(100, 124), 3], name)
    overlaps = (
        [
            Overlap(first="image", second="text", jaccard=0.125, num_items=10),
            Overlap(first="text", second=COOCCURRENCE, jaccard=0.0, num_items=0),
        ]
        if relations
        else []
    )
    return CaseStudy(
        model="mdsrec", run=f"/runs/{SPECIAL}", step=7, num_items=1000, num_users=50, channels=channels,
        relations=relations, length=2, mu=0.2, overlaps=tuple(overlaps), items=tuple(cases),
        item_rule="a rule", users=(user,), user_rule="another rule", hides_history=False,
    )  # fmt: skip


@pytest.mark.parametrize("study", [made_up(), made_up((), (ID,))], ids=["mdsrec", "sasrec"])
def test_the_page_is_well_formed_loads_nothing_and_escapes_all_data(study):
    text = page(study)
    text.encode()  # no surrogate is left
    found = Checker(text)
    assert found.kinds[:2] == ["html", "head"]
    assert set(found.kinds) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "p", "section", "div", "span", "bdi",
        "code", "ol", "ul", "li", "table", "caption", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert {key for key, _ in found.attributes} <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "style", "title", "scope"
    }  # fmt: skip
    for forbidden in ("http://", "https://", "url(", "@import", "<script", "src=x>", "\x00", "\u202e", "href"):
        assert forbidden not in text
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd").replace("\ud800", "\ufffd")
    assert ("title", shown) in found.attributes
    assert any(part.startswith('<script>alert("1")</script> &') and part.endswith("…") for part in found.text)
    assert f"u{SPECIAL}" in found.text
    assert text.count("<style>") == 1
    assert is_page(text[:1000], GENERATOR)
    assert not is_page("<!DOCTYPE html><html></html>", GENERATOR)


def test_what_the_page_says_of_an_item_and_of_a_user():
    study = made_up()
    text = " ".join("".join(Checker(page(study)).text).split())
    assert "Bought 1,234 times in training." in text
    assert "This item has no image." in text
    # Item 2 is in two lists, and each of them says so.
    assert "also bought together" in text
    assert "also alike by text" in text
    assert "12.5%" in text
    assert "… and 5 earlier ones." in text
    assert "place 2 of 1,000 by the whole score; 2 by past purchases alone; 2 by image alone" in text
    # The mark is in the three lists. Above the lists, the target has no mark.
    assert text.count("★ really bought next") == 3
    assert text.count("bought before") == 3 + 2  # and twice in the legend
    user = study.users[0]
    assert [offer.is_next for offer in user.best] == [False, True]
    assert [offer.is_old for offer in user.best] == [True, False]
    assert user.next_offer.score == pytest.approx(sum(user.best[1].parts))
    assert len(user.history) == 20


def test_bars_hold_negative_parts():
    user = made_up().users[0]
    axis = axis_of([user.next_offer, *user.best])
    parts = [part for offer in (user.next_offer, *user.best) for part in offer.parts]
    assert min(parts) < 0 < max(parts)
    assert axis.at(min(parts)) == 0
    assert axis.at(max(parts)) == 100
    assert 0 < axis.at(0.0) < 100


def test_titles_are_cut_at_a_word():
    assert title_of("short  title\n") == "short title"
    assert title_of("word " * 40) == " ".join(["word"] * 15) + " …"
    assert title_of("x" * 200) == "x" * 79 + "…"
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"], "or") == "a, b or c"
    assert element("p", "<", element("b", "&"), class_='"') == '<p class="&quot;">&lt;<b>&amp;</b></p>'


def test_users_with_the_most_divided_channels_come_first():
    same, apart = [[1, 2, 3]] * 3, [[1, 2, 3], [1, 2, 3], [4, 5, 6]]
    best = np.array([same, apart, same, apart]).transpose(1, 0, 2)
    assert most_divided(best, 3).tolist() == [1, 3, 0]
    assert most_divided(best[:2], 3).tolist() == [0, 1, 2]  # one channel: nothing to compare


@pytest.mark.parametrize("taken", ["id", "popularity", "purchases", "co-occurrence"])
def test_a_modality_is_never_called_like_one_of_our_own_parts_of_the_score(taken):
    """Older datasets may have a modality with such a name."""
    modality = Channel(taken, 0.5, is_modality=True)
    ours = [ID, Channel(COOCCURRENCE, 1.0)]
    words = [channel_word(channel) for channel in (*ours, modality)]
    assert len(set(words)) == 3
    assert words[-1] == taken
    assert len({channel.label for channel in (*ours, modality)}) == 3
    with pytest.raises(InputError):
        check_modality_name(COOCCURRENCE)  # so no modality can have the name of this relation either
