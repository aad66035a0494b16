"""What single elements of a page become."""

from collections.abc import Mapping

import pytest

from appliance.protocols.markdown_writer import MarkdownWriter
from appliance.protocols.page_elements import PageElements
from appliance.protocols.readable_text import read_html

URL = "https://example.org/dir/page"


def shown(html: str) -> str:
    return read_html(html, url=URL, limit=10_000).text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h2>A <b>bold</b> title</h2>x", "## A bold title\n\nx"),
        ("<p>a<p>b<br>c", "a\n\nb\nc"),
        ("<ul><li>a<li><p>b</p><li></ul>c", "- a\n- b\n\nc"),
        ("<ol start=9><li>a<li>b</ol>", "9. a\n10. b"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>", "- a\n  - b\n- c"),
        ("<blockquote><p>a<p>b</blockquote>c", "> a\n>\n> b\n\nc"),
        ("<p>use <code>a b</code>!", "use `a b`!"),
        ("<pre><code>if x:\n    y\n</code></pre>", "```\nif x:\n    y\n\n```"),
        ("<table><tr><th>a<th>b<tr><td><p>1</p><td>2</table>", "a | b\n--- | ---\n1 | 2"),
        ("<table><tr><td><table><tr><td>in</table></table>", "in"),
        ("<dl><dt>word<dd>meaning</dl>", "word\nmeaning"),
        ("<img alt='a cat' src=cat.png>", "![a cat](https://example.org/dir/cat.png)"),
        ("<img src=cat.png>x", "x"),
    ],
)
def test_an_element_becomes_its_markdown(html: str, text: str) -> None:
    assert shown(html) == text


@pytest.mark.parametrize(
    ("href", "text"),
    [
        ("/a", "[x](https://example.org/a)"),
        ("b?c=d&amp;e", "[x](https://example.org/dir/b?c=d&e)"),
        ("//other.example/", "[x](https://other.example/)"),
        ("mailto:me@example.org", "[x](mailto:me@example.org)"),
        ("a b(c)", "[x](https://example.org/dir/a%20b%28c%29)"),
        ("#part", "x"),
        ("javascript:alert(1)", "x"),
        ("data:text/html,x", "x"),
        ("http://[", "x"),
        ("y" * 3000, "x"),
        ("", "x"),
    ],
)
def test_links_are_absolute_and_lead_to_pages(href: str, text: str) -> None:
    assert shown(f'<a href="{href}">x</a>') == text


def test_links_are_relative_to_the_first_base() -> None:
    html = "<base href=https://other.example/d/><base href=https://third.example><a href=x>y</a>"

    assert shown(html) == "[y](https://other.example/d/x)"


def test_ends_without_beginnings_change_nothing() -> None:
    none: Mapping[str, str] = {}
    elements = PageElements(URL, MarkdownWriter(1000))
    for tag in ("td", "th", "tr", "table", "ul", "ol", "a", "title", "h1"):
        elements.end(tag)
    for tag in ("td", "th", "tr"):
        elements.begin(tag, none)
    elements.text("x")

    assert "".join(elements.writer.pieces) == "x"
