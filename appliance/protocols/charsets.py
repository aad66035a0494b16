"""Turns a body into text, in whatever characters it was written."""

import codecs
import re

# Names that mean text and nothing else: Python also knows "codecs" that
# compress, and some whose decoding takes quadratic time.
_KNOWN = re.compile(
    r"utf-?8|utf-?16(?:-?[lb]e)?|us-?ascii|ascii|latin-?1|iso-?8859-?[0-9]{1,2}"
    r"|(?:windows|cp)-?125[0-8]|windows-874|koi8-?[ru]|macintosh|gbk|gb2312|gb18030|big5"
    r"|big5-hkscs|shift[-_]?jis|sjis|windows-31j|euc-?jp|iso-2022-jp|euc-?kr|ks_c_5601-1987"
    r"|tis-620",
    re.ASCII,
)
# What browsers read under these names, because pages mean it.
_MEANT = {
    "ascii": "cp1252",
    "usascii": "cp1252",
    "latin1": "cp1252",
    "iso88591": "cp1252",
    "iso88599": "cp1254",
    "tis620": "cp874",
    "windows874": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "kscs56011987": "cp949",
    "euckr": "cp949",
    "shiftjis": "cp932",
    "sjis": "cp932",
    "windows31j": "cp932",
    "macintosh": "mac-roman",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_IN_HEADER = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE | re.ASCII)
_IN_BODY = re.compile(rb"(?:charset|encoding)\s{0,8}=\s{0,8}[\"']?\s{0,8}([\w.:-]{1,40})", re.I)
_LOOKED_AT = 2048  # bytes in which a page must say it


def decoded_text(body: bytes, content_type: str) -> str:
    """``body`` as text; what cannot be read becomes U+FFFD. Raises nothing."""
    for mark, marked in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(marked, "replace")
    named = _IN_HEADER.search(content_type)
    codec = _codec(named[1]) if named else None
    if codec is None and (found := _IN_BODY.search(body[:_LOOKED_AT])):
        codec = _codec(found[1].decode("ascii", "replace"))
        # It was readable as ASCII so far, so it cannot be that.
        codec = "utf-8" if codec is not None and codec.startswith("utf") else codec
    if codec is not None:
        return body.decode(codec, "replace")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        whole = body[: error.start]
        if error.reason == "unexpected end of data" and not whole.isascii():
            return whole.decode()  # one character was cut in two at the end
        # In UTF-8 nearly nothing is valid by chance: it is the other frequent one.
        return body.decode("cp1252", "replace")


def _codec(name: str) -> str | None:
    name = name.lower()
    if _KNOWN.fullmatch(name) is None:
        return None
    codec = _MEANT.get(re.sub(r"[^a-z0-9]", "", name), name)
    try:
        return codecs.lookup(codec).name
    except LookupError:
        return None
