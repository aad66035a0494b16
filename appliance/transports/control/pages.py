"""Pages for a browser: complete in themselves, without a script or a foreign byte."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from appliance.transports.control.route import HTML, Answer

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
code { font: 0.9em ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #8884; padding: 0.35rem 0.75rem 0.35rem 0; text-align: left;
  vertical-align: top; }
td:first-child { white-space: nowrap; }
.quiet { opacity: 0.7; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# Nothing may load, run, be framed or be sent anywhere; the one style is named
# by its hash, so that text which slipped through unescaped could not bring one.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def page(title: str, content: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """A whole page. ``title`` is text, ``content`` is HTML made by the caller of escaped parts."""
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · OpenClawMU</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{content}\n</body>\n</html>\n"
    )
    return Answer(html.encode(), media_type=HTML, headers={**_HEADERS, **(headers or {})})
