"""How the address of a page is read: in one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.web_addresses import AddressInvalid, WebAddress


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("http://Example.ORG", "http://example.org/"),
        ("  https://example.org:443/a?b=c#d ", "https://example.org/a?b=c"),
        ("https://example.org:8443/ä b", "https://example.org:8443/%C3%A4%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://example.org?q=[a]|b", "http://example.org/?q=[a]%7Cb"),
        ("http://10.0.0.1/", "http://10.0.0.1/"),
        ("http://example.org./", "http://example.org./"),
        ("http://example.org/%2e%2e/x", "http://example.org/%2e%2e/x"),
    ],
)
def test_an_address_is_read_and_written_as_it_travels(text: str, read: str) -> None:
    assert WebAddress.parse(text).text == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "//example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "ftp://example.org/",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://",
        "http:///path",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://good.example\\@evil.example/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://[::1%25lo]/",
        "http://[fe80::1%lo]/",
        "http://[::1",
        "http://[not]/",
        "http://exa mple.org/",
        "http://ex%61mple.org/",
        "http://-/",
        "http://a..b/",
        "http://example.org/\r\nHost: evil",
        "http://example.org/\x00",
        f"http://example.org/{'x' * 9000}",
        f"http://{'a.' * 200}org/",
    ],
)
def test_what_is_no_address_of_a_page_is_refused(text: str) -> None:
    with pytest.raises(AddressInvalid):
        WebAddress.parse(text)


def test_a_location_is_read_from_where_it_was_found() -> None:
    here = WebAddress.parse("https://example.org/a/b?c")

    assert here.leading_to("../d").text == "https://example.org/d"
    assert here.leading_to("?e").text == "https://example.org/a/b?e"
    assert here.leading_to("//other.example").text == "https://other.example/"
    with pytest.raises(AddressInvalid):
        here.leading_to("http://[")


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,20}/.{0,20}", fullmatch=True))
def test_whatever_is_read_can_be_sent_and_is_read_again_as_the_same(text: str) -> None:
    try:
        address = WebAddress.parse(text)
    except AddressInvalid:
        return
    assert WebAddress.parse(address.text) == address
    line = f"GET {address.target} HTTP/1.1\r\nHost: {address.authority}"
    assert line.isascii()
    assert line.count(" ") == 3
    assert line.count("\n") == 1
    assert "@" not in address.authority
