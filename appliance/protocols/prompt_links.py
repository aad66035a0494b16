"""Pictures and documents in a prompt, whose size says nothing about their tokens.

Those that it holds by reference only the provider will see; the base64 of a
picture is far longer than what it costs. Both are estimated flat.
"""

import re
from collections.abc import Iterator, Sequence

_PICTURE_TOKENS = 1_600  # what providers charge at most for one in the usual detail
_DOCUMENT_TOKENS = 20_000  # some ten pages
_BYTES_A_TOKEN = 3  # as the meter counts a prompt
# Inside a string the quotes around these names would be escaped.
_LINK_MARKS = (b'"url"', b'"image_url"', b'"file_url"')
_TO_LINK = re.compile(rb'\s*:\s*"https?:', re.IGNORECASE)
_TO_STRING = re.compile(rb'\s*:\s*"')
_TO_DOCUMENT = re.compile(rb'\s*:\s*"document"')
_TO_ANYTHING = re.compile(rb"\s*:")
_TO_PICTURE = re.compile(rb'\s*:\s*"(?=data:image\\?/[^",]{1,512}?;base64,)', re.IGNORECASE)
_PICTURE_TYPE = re.compile(rb'"media_type"\s*:\s*"image\\?/')
_BESIDE = 1024  # bytes before and after the data of a picture that say what it is


def linked_size(said: bytes) -> int:
    """Bytes that stand for what ``said``, JSON of any dialect's messages, refers to."""
    # One pass for each word, in C, and mostly nothing is found. A regular
    # expression of all of them would hold up everybody else for as long as the
    # passes take together, and ten times that with many quotes.
    links = sum(_count(said, mark, _TO_LINK) for mark in _LINK_MARKS)
    kept = _count(said, b'"file_id"', _TO_STRING)
    if not links and not kept:
        return 0
    documents = _count(said, b'"type"', _TO_DOCUMENT) + _count(said, b'"file_url"', _TO_ANYTHING)
    documents = min(links, documents)
    tokens = (links - documents) * _PICTURE_TOKENS + (documents + kept) * _DOCUMENT_TOKENS
    return tokens * _BYTES_A_TOKEN


def pictures_beyond(said: bytes, words: Sequence[bytes]) -> int:
    """By how much pictures, as data URLs after ``words``, are longer than what they cost."""
    beyond = 0
    if b"data:" in said:
        for word in words:
            for end in _ends(said, word):
                if begin := _TO_PICTURE.match(said, end):
                    size = said.find(b'"', begin.end()) - begin.end()
                    beyond += size - _PICTURE_TOKENS * _BYTES_A_TOKEN
    return beyond


def sources_beyond(said: bytes) -> int:
    """The same of pictures as Anthropic's messages have them, whatever the order of the members."""
    beyond = 0
    if b'"base64"' not in said:
        return 0
    for end in _ends(said, b'"data"'):
        if begin := _TO_STRING.match(said, end):
            closed = said.find(b'"', begin.end())
            before, after = said[max(0, end - _BESIDE) : end], said[closed : closed + _BESIDE]
            beside = before.rpartition(b"{")[2] + after.partition(b"}")[0]
            if b'"base64"' in beside and _PICTURE_TYPE.search(beside):
                beyond += closed - begin.end() - _PICTURE_TOKENS * _BYTES_A_TOKEN
    return beyond


def _count(said: bytes, word: bytes, before: re.Pattern[bytes]) -> int:
    """How often ``word`` comes before what ``before`` matches."""
    return sum(1 for end in _ends(said, word) if before.match(said, end))


def _ends(said: bytes, word: bytes) -> Iterator[int]:
    at = said.find(word)
    while at >= 0:
        yield at + len(word)
        at = said.find(word, at + len(word))
