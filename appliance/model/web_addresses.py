"""Addresses of pages on the web, as they are written and as they are asked for.

There is one reading of an address: what is checked, what is connected to and
what the ``Host`` header says all come from it.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
LONGEST = 8192  # characters

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
# Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses too.
_ENDS_AS_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.ASCII)
_PATH = "/:@!$&'()*+,;=-._~%"
_QUERY = f"{_PATH}?/[]"


class AddressInvalid(ValueError):
    """The text says why, and is safe to show."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """``host`` is ASCII in lower case, of an IPv6 address without its brackets.

    ``target`` is path and query as they travel.
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> "WebAddress":
        """Raises :exc:`AddressInvalid`, also for user names, other schemes and odd spellings."""
        text = text.strip()
        if not text or len(text) > LONGEST or _CONTROL.search(text):
            raise AddressInvalid(f"not a URL of at most {LONGEST} characters")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise AddressInvalid("not a URL") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise AddressInvalid("only http:// and https:// URLs can be fetched")
        if "@" in parts.netloc:
            raise AddressInvalid("a user name or password in a URL is not sent")
        if port == 0:
            raise AddressInvalid("0 is not a port")
        target = quote(parts.path or "/", safe=_PATH)
        if parts.query:
            target = f"{target}?{quote(parts.query, safe=_QUERY)}"
        host = _host(parts.hostname or "", is_bracketed="[" in parts.netloc)
        return cls(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], target)

    def leading_to(self, location: str) -> "WebAddress":
        """Where ``location``, found here, leads. Raises :exc:`AddressInvalid`."""
        try:
            return self.parse(urljoin(self.text, location.strip()))
        except AddressInvalid:
            raise
        except ValueError:
            raise AddressInvalid("not a URL") from None

    @property
    def authority(self) -> str:
        """As the ``Host`` header says it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def is_encrypted(self) -> bool:
        return self.scheme == "https"


def _host(text: str, *, is_bracketed: bool) -> str:
    try:
        if is_bracketed:
            # Of a zone (``%eth0``) we would not know which network it means.
            return str(ipaddress.IPv6Address("" if "%" in text else text))
        host = text if text.isascii() else text[:254].encode("idna").decode("ascii")
        host = host.lower()
        if _ENDS_AS_NUMBER.fullmatch(host):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise AddressInvalid("its host is neither a name nor an address") from None
    if _NAME.fullmatch(host) is None:
        raise AddressInvalid("its host is neither a name nor an address")
    return host
