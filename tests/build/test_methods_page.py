"""docs/methods.md is what `make docs` writes."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.transports.rpc.method import Method
from appliance.transports.rpc.table import METHODS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "methods.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "build" / "methods_page.py"))


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    render: Callable[[], str] = script["render"]

    # No difference is shown: it would be a hundred kilobytes long.
    assert (render() == PAGE.read_text()) is True, "run `make docs`"


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = PAGE.read_text()
    headings = re.findall(r"^#+ `?([^`\n]+)`?$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w-]", "", heading.lower()) for heading in headings}

    assert set(re.findall(r"\(#([^)]+)\)", page)) <= anchors


@pytest.mark.parametrize(
    "method", [m for m in METHODS if not m.is_available], ids=lambda method: method.name
)
def test_what_is_not_available_says_what_it_comes_with(
    script: dict[str, Any], method: Method
) -> None:
    feature: Callable[[Method], str] = script["feature"]

    assert feature(method)


def test_no_shape_is_called_like_a_method() -> None:
    headings = re.findall(r"^### (\S+)$", PAGE.read_text(), re.MULTILINE)
    names = [re.sub(r"[^\w-]", "", heading.lower()) for heading in headings]

    assert len(names) == len(set(names))
