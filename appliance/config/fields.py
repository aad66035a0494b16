"""What a single setting must look like.

A check stands in the ``extra`` of an annotation and is called with the value
as it was written; it raises :exc:`ValueError` with a reason that never quotes
the value where that may be a secret.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from msgspec import Meta

from appliance.model.ids import parse_agent_id
from appliance.model.money import parse_amount
from appliance.model.tokens import parse_stored_digest

RESERVED_NAME = "openclaw"  # ``openclaw``, ``openclaw:<agent>``, ``openclaw/<agent>`` are agents

_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]{1,128}")
_MODEL = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_LONGEST_ZONE = 64
_MAIN_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_COMMAND = re.compile(r"/[^\s\x00-\x1f\x7f]{1,63}")
_PEER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}:[^\s\x00-\x1f\x7f]{1,256}")
_PICTURE = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,[A-Za-z0-9+/]{1,60000}={0,2}", re.ASCII)
_PICTURE_FILE = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_ .-]*(/[A-Za-z0-9_][A-Za-z0-9_ .-]*){0,8}", re.ASCII
)
_LONGEST_PICTURE_NAME = 512
_STORED_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HOST_PATTERN = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+"
    r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII,
)
_TOOL_PATTERN = re.compile(r"group:[a-z0-9_]{1,64}|[A-Za-z0-9_*-]{1,128}", re.ASCII)
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9-]|_(?!_)){0,31}", re.ASCII)
_IMAGE_NAME = re.compile(
    r"[a-z0-9][a-z0-9._/-]{0,200}(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?", re.ASCII
)
# What carries a key belongs in ``api_key``, where it is a reference; what
# frames a message belongs to the transport.
_FORBIDDEN_HEADERS = frozenset(
    {
        "authorization", "proxy-authorization", "x-api-key", "api-key", "cookie",
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer",
    }
)  # fmt: skip
# Of those, the ones that carry a credential and nothing else.
_CARRIERS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text; put it in quotes")  # noqa: TRY004 - one error type for one cause
    return value


def parse_bind(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` (``[::1]:80`` for IPv6); raise :exc:`ValueError` for anything else."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # At most five digits: int() of a longer text may be slow, and no port is longer.
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ValueError("an address reads HOST:PORT, such as 127.0.0.1:18789")
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("only an IPv6 address stands in brackets") from None
    elif not _HOST.fullmatch(host):
        raise ValueError("an address reads HOST:PORT, such as 127.0.0.1:18789")
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_model(text: str) -> tuple[str, str] | None:
    """Both parts of ``provider/model`` (the model may hold slashes); None for another name."""
    provider, slash, model = text.partition("/")
    return (provider, model) if slash and provider and model else None


def check_bind(value: object) -> None:
    parse_bind(_text(value))


def check_network(value: object) -> None:
    try:
        ipaddress.ip_network(_text(value), strict=False)
    except ValueError:
        raise ValueError("not an address or network such as 10.0.0.0/8") from None


def check_origin(value: object) -> None:
    parts = _url(_text(value))
    if parts.path or parts.query or parts.fragment:
        raise ValueError("an origin is scheme and host only, such as https://chat.example.org")


def check_base_url(value: object) -> None:
    parts = _url(_text(value))
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no query and no fragment")


def check_url(value: object) -> None:
    """Where backups go: ``s3://bucket/prefix`` or ``file:/path``."""
    parts = urlsplit(_text(value))
    if parts.username or parts.password:
        raise ValueError("credentials do not belong in a URL")
    if parts.scheme == "s3" and parts.netloc:
        return
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return
    raise ValueError("must read s3://BUCKET/PREFIX or file:/PATH")


def check_path(value: object) -> None:
    text = _text(value)
    if not text.startswith("/") or "\x00" in text:
        raise ValueError("must be an absolute path")


def check_bind_mount(value: object) -> None:
    source, colon, target = _text(value).partition(":")
    target, _, mode = target.partition(":")
    if not colon or not source.startswith("/") or not target.startswith("/"):
        raise ValueError("a bind reads /SOURCE:/TARGET or /SOURCE:/TARGET:rw")
    if ".." in source.split("/") or ".." in target.split("/") or mode not in {"", "ro", "rw"}:
        raise ValueError("a bind reads /SOURCE:/TARGET or /SOURCE:/TARGET:rw")


def check_reference(value: object) -> None:
    kind, _, name = _text(value).partition(":")
    if kind == "env" and _VARIABLE.fullmatch(name):
        return
    if kind == "file" and name.startswith("/") and "\x00" not in name:
        return
    if kind == "cred" and _CREDENTIAL.fullmatch(name):
        return
    # The text is not quoted: it may be the secret itself.
    raise ValueError("must be a reference to a secret, not the secret itself")


def check_admin_hash(value: object) -> None:
    text = _text(value)
    if not _STORED_DIGEST.fullmatch(text):
        raise ValueError("must read sha256: and 64 hex digits; the key itself is never stored")
    parse_stored_digest(text)


def check_amount(value: object) -> None:
    # A number without quotes has been through a float and lost digits; an
    # integer has not, but then 10 would be right and 10.5 wrong.
    if not isinstance(value, str):
        raise ValueError('a price is a decimal in quotes, such as "1.25"')  # noqa: TRY004 - one error type for one cause
    parse_amount(value)


def check_provider_name(value: object) -> None:
    text = _text(value)
    if not _PROVIDER.fullmatch(text):
        raise ValueError("a provider is named with 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    if text == RESERVED_NAME:
        raise ValueError(f"{RESERVED_NAME!r} stands for the gateway's own agents")


def check_model_name(value: object) -> None:
    text = _text(value)
    if not _MODEL.fullmatch(text) or split_model(text) is None:
        raise ValueError("a model reads provider/model")


def check_model_or_alias(value: object) -> None:
    text = _text(value)
    if "/" in text:
        check_model_name(text)
    else:
        check_alias(text)


def check_alias(value: object) -> None:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise ValueError("an alias is 1 to 128 characters without spaces and slashes")
    if text.partition(":")[0] == RESERVED_NAME:
        raise ValueError(f"{RESERVED_NAME!r} stands for the gateway's own agents")


def check_agent_id(value: object) -> None:
    parse_agent_id(_text(value))


def check_template_name(value: object) -> None:
    if not _TEMPLATE.fullmatch(_text(value)):
        raise ValueError("a template is named with 1 to 64 of a-z, 0-9, '_' and '-'")


def check_currency(value: object) -> None:
    if not _CURRENCY.fullmatch(_text(value)):
        raise ValueError("a currency is three capital letters, such as USD")


def check_variable(value: object) -> None:
    if not _VARIABLE.fullmatch(_text(value)):
        raise ValueError("a variable is named with letters, digits and '_'")


def check_time_zone(value: object) -> None:
    text = _text(value)
    # The name becomes a file name, so its shape is settled before anything looks for it.
    if len(text) > _LONGEST_ZONE or not _ZONE.fullmatch(text):
        raise ValueError("a time zone reads like Europe/Berlin or UTC")
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # not there, not a zone, a folder of zones
        raise ValueError("no time zone has this name") from None


def check_main_key(value: object) -> None:
    text = _text(value)
    if not _MAIN_KEY.fullmatch(text) or text in {"agent", "tenant", "global", "unknown"}:
        raise ValueError("a session is named with 1 to 64 of a-z, 0-9, '.', '_' and '-'")


def check_command(value: object) -> None:
    if not _COMMAND.fullmatch(_text(value)):
        raise ValueError("a command starts with '/' and has no spaces")


def check_peer(value: object) -> None:
    if not _PEER.fullmatch(_text(value)):
        raise ValueError("a peer reads CHANNEL:ID")


def check_avatar(value: object) -> None:
    """A picture that pages may show: nothing in it can run, nothing leaves the workspace."""
    text = _text(value)
    if _PICTURE.fullmatch(text):
        return
    if len(text) > _LONGEST_PICTURE_NAME:
        raise ValueError(f"longer than {_LONGEST_PICTURE_NAME} characters")
    if text.startswith(("http://", "https://")):
        _url(text)
    elif not _PICTURE_FILE.fullmatch(text):
        raise ValueError("a picture is an https:// address, a data:image/ or a file's path")


def check_headers(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping of header names to text")  # noqa: TRY004 - one error type for one cause
    for name, content in value.items():
        if not _HEADER.fullmatch(_text(name)):
            raise ValueError("a header name holds letters, digits and '-'")
        if name.lower() in _FORBIDDEN_HEADERS:
            raise ValueError(f"the header {name} cannot be set here; a key belongs in api_key")
        if not _HEADER_VALUE.fullmatch(_text(content)):
            raise ValueError(f"the value of {name} must be printable ASCII text")


def check_header_name(value: object) -> None:
    """A header that a credential travels in; those that frame a message are not for that."""
    text = _text(value)
    if not _HEADER.fullmatch(text) or text.lower() in _FORBIDDEN_HEADERS - _CARRIERS:
        raise ValueError("a credential travels in a header such as authorization or x-api-key")


def check_host_pattern(value: object) -> None:
    if not _HOST_PATTERN.fullmatch(_text(value)):
        raise ValueError("a host reads api.example.org, or *.example.org for all below it")


def check_tool_pattern(value: object) -> None:
    if not _TOOL_PATTERN.fullmatch(_text(value)):
        raise ValueError("a tool is named like exec, a group like group:fs, and * stands for any")


def check_server_name(value: object) -> None:
    # Two underscores stand between a server's name and its tool's.
    if not _SERVER.fullmatch(_text(value)):
        raise ValueError("a server is named with 1 to 32 of a-z, 0-9, '-' and single '_'")


def check_image(value: object) -> None:
    if not _IMAGE_NAME.fullmatch(_text(value)):
        raise ValueError("an image reads NAME, NAME:TAG or NAME@sha256:DIGEST")


def _url(text: str) -> Any:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise ValueError("must be a URL that starts with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in a URL")
    if not text.isascii() or re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError("a URL has no spaces and only ASCII characters")
    return parts


def _checked(check: Any, remedy: str = "", *, secret: bool = False) -> Meta:
    return Meta(extra={"check": check, "remedy": remedy, "secret": secret})


Bind = Annotated[str, _checked(check_bind, "write HOST:PORT")]
Network = Annotated[str, _checked(check_network)]
Origin = Annotated[str, _checked(check_origin)]
BaseUrl = Annotated[str, _checked(check_base_url)]
StoreUrl = Annotated[str, _checked(check_url)]
AbsolutePath = Annotated[str, _checked(check_path)]
BindMount = Annotated[str, _checked(check_bind_mount)]
SecretReference = Annotated[
    str, _checked(check_reference, "write env:NAME, file:/PATH or cred:NAME", secret=True)
]
AdminKeyHash = Annotated[str, _checked(check_admin_hash, "openclawmu init prints one")]
Amount = Annotated[str, _checked(check_amount, "put it in quotes")]
ProviderName = Annotated[str, _checked(check_provider_name)]
ModelName = Annotated[str, _checked(check_model_name)]
ModelOrAlias = Annotated[str, _checked(check_model_or_alias)]
Alias = Annotated[str, _checked(check_alias)]
AgentId = Annotated[str, _checked(check_agent_id)]
TemplateName = Annotated[str, _checked(check_template_name)]
Currency = Annotated[str, _checked(check_currency)]
Variable = Annotated[str, _checked(check_variable)]
Headers = Annotated[dict[str, str], _checked(check_headers)]
TimeZone = Annotated[str, _checked(check_time_zone)]
HeaderName = Annotated[str, _checked(check_header_name)]
HostPattern = Annotated[str, _checked(check_host_pattern)]
Image = Annotated[str, _checked(check_image)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
ServerName = Annotated[str, _checked(check_server_name)]
ToolPattern = Annotated[str, _checked(check_tool_pattern)]
MainKey = Annotated[str, _checked(check_main_key)]
Command = Annotated[str, _checked(check_command)]
Peer = Annotated[str, _checked(check_peer)]
Avatar = Annotated[str, _checked(check_avatar)]
Emoji = Annotated[str, Meta(min_length=1, max_length=32)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]  # 0 is no limit at all
Count = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
