"""How pages are made: text stays text, and the policy lets nothing in."""

import re
from pathlib import Path

import pytest

from appliance.model.errors import Forbidden, TokenRejected
from appliance.transports.callers import ROUTE_TENANT
from appliance.transports.problems import problem_of
from appliance.transports.web.pages import VENDORED, Site, refusal, site

POLICY = "content-security-policy"
WEB = Path(__file__).resolve().parents[3] / "appliance" / "web"


def test_a_value_cannot_become_markup() -> None:
    page = (
        site()
        .page("replay.html", {}, {"tenant": '"><script>', "recording": "' onload=alert(1) x='"})
        .content.decode()
    )

    assert 'data-tenant="&#34;&gt;&lt;script&gt;"' in page
    assert 'data-recording="&#39; onload=alert(1) x=&#39;"' in page


def test_the_policy_names_what_a_page_may_do_and_nothing_else() -> None:
    policy = dict(
        directive.strip().partition(" ")[::2]
        for directive in site().page("support.html", {}).headers[POLICY].split(";")
    )

    assert policy.pop("style-src").startswith("'self' 'nonce-")
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_each_response_has_a_nonce_of_its_own() -> None:
    pages = [site().page("support.html", {}) for _ in range(2)]

    nonces = [re.findall(r"'nonce-([\w-]{20,})'", page.headers[POLICY]) for page in pages]

    assert nonces[0] != nonces[1]
    assert f'nonce="{nonces[0][0]}"' in pages[0].content.decode()


def test_below_a_tenants_prefix_everything_stays_below_it() -> None:
    page = site().page("support.html", {ROUTE_TENANT: "acme"}).content.decode()

    assert 'data-prefix="/t/acme"' in page
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert addresses
    assert all(address.startswith("/t/acme/assets/") for address in addresses)


def test_without_a_session_people_are_told_how_to_get_one() -> None:
    answer = refusal(problem_of(TokenRejected(), request_id="req_1"), {})

    assert answer.status == 401
    assert "/v1/tenants/&lt;id&gt;/tickets" in answer.content.decode()
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_any_other_refusal_is_a_page_with_its_reason() -> None:
    answer = refusal(problem_of(Forbidden("not <yours>"), request_id="req_1"), {})

    assert answer.status == 403
    assert "not &lt;yours&gt;" in answer.content.decode()
    assert "req_1" in answer.content.decode()


def test_a_gateway_whose_browser_code_was_not_built_knows_it(tmp_path: Path) -> None:
    (tmp_path / "templates").symlink_to(WEB / "templates")
    (tmp_path / "static").symlink_to(WEB / "static")

    bare = Site(tmp_path)

    assert not bare.has_terminal
    assert "make web" in bare.page("not_built.html", {}).content.decode()
    (tmp_path / "vendor").mkdir()
    for name in VENDORED:
        (tmp_path / "vendor" / name).touch()
    assert Site(tmp_path).has_terminal


OWN = sorted((WEB / "static").glob("*.js"))
# What would make code or markup of text, or take what comes from elsewhere.
UNSAFE = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setHTML"
    r"|createContextualFragment|DOMParser|javascript:|https?://|document\.title|import\("
)


@pytest.mark.parametrize("module", OWN, ids=lambda path: path.name)
def test_no_module_of_ours_makes_markup_of_text(module: Path) -> None:
    assert UNSAFE.findall(module.read_text()) == []


@pytest.mark.parametrize("module", OWN, ids=lambda path: path.name)
def test_every_module_imports_only_what_is_served_beside_it(module: Path) -> None:
    imported = re.findall(r"(?:from|^import) '\./([\w.-]+)';$", module.read_text(), re.MULTILINE)
    quoted = re.findall(r"(?:from|^import) '([^']+)'", module.read_text(), re.MULTILINE)

    assert len(quoted) == len(imported)
    served = {path.name for path in OWN} | set(VENDORED)
    assert set(imported) <= served


@pytest.mark.parametrize(
    "template", sorted((WEB / "templates").glob("*.html")), ids=lambda p: p.name
)
def test_no_template_has_inline_code_or_style(template: Path) -> None:
    text = template.read_text()

    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|\|\s*safe", text)
