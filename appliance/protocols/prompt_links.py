"""What a prompt holds by reference: pictures and documents that only the provider will see.

Their size is not in the request, so that their cost is estimated flat.
"""

import re

_PICTURE_TOKENS = 1_600  # what providers charge at most for one in the usual detail
_DOCUMENT_TOKENS = 20_000  # some ten pages
_BYTES_A_TOKEN = 3  # as the meter counts a prompt
# Inside a string the quotes around these names would be escaped.
_MARKS = (b'"url"', b'_url"', b'"file_id"')
_LINK = re.compile(rb'"(?:url|image_url|file_url)"\s*:\s*"https?:', re.IGNORECASE)
_DOCUMENT = re.compile(rb'"type"\s*:\s*"document"|"file_url"\s*:')
_FILE_ID = re.compile(rb'"file_id"\s*:\s*"')


def linked_size(said: bytes) -> int:
    """Bytes that stand for what ``said``, JSON of any dialect's messages, refers to."""
    if not any(mark in said for mark in _MARKS):
        return 0  # nearly always, and quickly known
    links = len(_LINK.findall(said))
    documents = min(links, len(_DOCUMENT.findall(said)))
    kept = len(_FILE_ID.findall(said))
    tokens = (links - documents) * _PICTURE_TOKENS + (documents + kept) * _DOCUMENT_TOKENS
    return tokens * _BYTES_A_TOKEN
