"""How the characters of a page are found out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.charsets import decoded_text


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("é".encode(), "text/html", "é"),
        ("é".encode(), "text/html; charset=UTF-8", "é"),
        (b"\xe9", "text/html; charset=iso-8859-1", "é"),
        (b"\x80", "text/html; charset=latin1", "€"),
        (b"\xe9", "text/html", "é"),
        (b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=iso-8859-1", "é"),
        ("é".encode("utf-16"), "text/html", "é"),
        ("日本".encode("shift_jis"), 'text/html; charset="Shift_JIS"', "日本"),
        ("中文".encode("gbk"), "text/html;charset=gb2312", "中文"),
        (b'<meta charset="windows-1251">\xcf', "text/html", '<meta charset="windows-1251">П'),
        (b"<?xml encoding='koi8-r'?>\xf0", "text/xml", "<?xml encoding='koi8-r'?>П"),
        (b"<meta charset=utf-16>\xc3\xa9", "text/html", "<meta charset=utf-16>é"),
        ("éé".encode()[:-1], "text/html", "é"),
        (b"a\xffb", "text/html; charset=utf-8", "a\ufffdb"),
    ],
)
def test_a_mark_then_the_header_then_the_page_decides(
    body: bytes, content_type: str, text: str
) -> None:
    assert decoded_text(body, content_type) == text


@pytest.mark.parametrize(
    "name", ["zip", "base64", "rot13", "idna", "punycode", "unicode_escape", "utf-7", "hex", "x"]
)
def test_what_is_no_charset_of_pages_is_not_believed(name: str) -> None:
    assert decoded_text(b"+AGE-", f"text/html; charset={name}") == "+AGE-"


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_body_becomes_text(body: bytes, charset: str) -> None:
    decoded_text(body, f"text/html; charset={charset}").encode()
