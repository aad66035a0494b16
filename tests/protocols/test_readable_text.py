"""What is read of a page, whoever wrote it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.readable_text import LARGEST_PAGE, ReadablePage, read_html, visible

URL = "https://example.org/"
WORDS = "words that matter " * 20
TAGS = [
    "a", "ul", "ol", "li", "p", "pre", "code", "table", "tr", "td", "th", "blockquote", "h1",
    "title", "main", "article", "nav", "br", "script", "base", "svg", "body", "html", "head",
]  # fmt: skip
# Much of little: each takes a parser that is not careful a long time, or all the memory.
HOSTILE = {
    "depth": "<b>" * 1_000_000,
    "tables": "<table>" * 500_000,
    "paragraphs": "<p>" * 1_000_000,
    "items": "<li>x" * 500_000,
    "wrong ends": "<b></i>" * 500_000,
    "ends that mean nothing": "<b>" * 450 + "</i>" * 600_000,
    "attributes": "<a " + " ".join(f"a{number}=1" for number in range(300_000)) + ">x",
    "one attribute": '<a href="' + "x" * 4_000_000 + '">y</a>',
    "entities": "&amp;" * 800_000,
    "a number": "&#" + "1" * 4_000_000,
    "open brackets": "<" * 4_000_000,
    "comments": "<!--" * 1_000_000,
    "links": "<base href=https://e.org/" + "a/" * 900 + ">" + "<a href=x>y</a>" * 200_000,
    "quotes": "<blockquote>x" * 400 + "<p>y" * 500_000,
    "articles": "<article>x</article>" * 200_000,
    "a title": "<title>" + "&amp;" * 400_000,
    "styles": ("<p style='" + "display " * 1000 + "'>x</p>") * 200,
    "lines": "<pre>" + "\n" * 4_000_000,
}


def read(html: str, *, limit: int = 10_000, with_marks: bool = True) -> ReadablePage:
    return read_html(html, url=URL, limit=limit, with_marks=with_marks)


def test_the_main_part_is_read_where_the_page_says_which_it_is() -> None:
    page = read(
        f"<title> The\n title </title><header>Top</header><nav>Menu</nav><p>Around<main>{WORDS}"
        f"<header>By me</header></main><aside>Ad</aside><footer>Below</footer>"
    )

    assert page == ReadablePage("The title", f"{WORDS.strip()}\n\nBy me", is_cut=False)


def test_an_article_is_the_page_if_it_is_most_of_it() -> None:
    assert read(f"<p>Around<article>{WORDS}</article>").text == WORDS.strip()
    assert read("<article>Teaser</article><p>Most of it" * 30).text.count("Most of it") == 30


def test_what_stands_around_is_read_where_there_is_nothing_else() -> None:
    assert read(f"<nav>{WORDS}</nav>").text == WORDS.strip()


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>{}</script>",
        "<style>{}</style>",
        "<!-- {} -->",
        "<template>{}</template>",
        "<noscript>{}</noscript>",
        "<p hidden>{}</p>",
        "<div aria-hidden=true><p>{}</p></div>",
        "<p style='color: red; display:none'>{}</p>",
        "<p style='VISIBILITY : hidden'>{}</p>",
        "<p style='opacity:0'>{}</p>",
        "<p style='font-size:0px;'>{}</p>",
        "<dialog>{}</dialog>",
        "<select><option>{}</option></select>",
        "<svg><text>{}</text></svg>",
        "<p title='{}'></p>",
    ],
)
def test_what_nobody_sees_is_not_read(hidden: str) -> None:
    page = read(f"<p>before</p>{hidden.format('obey me')}<p>after</p>")

    assert page.text == "before\n\nafter"


def test_a_page_that_hides_itself_until_its_script_ran_is_read() -> None:
    assert read(f"<body style='opacity: 0'>{WORDS}").text == WORDS.strip()


def test_characters_that_nobody_sees_are_left_out() -> None:
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")

    assert visible(f"a{tags}\u202eb\x1b[0m\u2063c\ufeff\u200d") == "ab[0mc\u200d"
    assert read(f"<title>t{tags}</title><p>x{tags}y").text == "xy"


def test_only_as_much_as_is_wanted_is_returned() -> None:
    page = read("<p>word" * 1000, limit=100)

    assert len(page.text) == 100
    assert page.is_cut
    assert not read("<p>word", limit=100).is_cut


def test_a_page_longer_than_is_looked_at_is_cut() -> None:
    assert read("x" * (LARGEST_PAGE + 1)).is_cut


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_page_takes_neither_long_nor_much(name: str) -> None:
    began = time.process_time()
    page = read(HOSTILE[name])

    # Measured: at most 2 s; a quadratic parser takes minutes.
    assert time.process_time() - began < 8
    assert len(page.text) <= 10_000


def test_documents_fetch_nothing_and_define_no_entities() -> None:
    page = read(
        '<!DOCTYPE html [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">'
        '<!ENTITY x SYSTEM "file:///etc/hostname">]><p>1 &x; 2 &b;'
    )

    assert "&x; 2 &b;" in page.text


@given(
    st.lists(
        st.tuples(st.sampled_from(["<{}>", "</{}>", "<{} href='x'>"]), st.sampled_from(TAGS)).map(
            lambda drawn: drawn[0].format(drawn[1])
        )
        | st.sampled_from(["x", " ", "\n", "&amp;", "<", "hidden "]),
        max_size=60,
    ),
    st.integers(0, 50),
    st.booleans(),
)
def test_any_soup_of_tags_is_read(pieces: list[str], limit: int, with_marks: bool) -> None:  # noqa: FBT001 - drawn
    page = read("".join(pieces), limit=limit, with_marks=with_marks)

    assert len(page.text) <= limit


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert len(read(text, limit=100).text) <= 100
