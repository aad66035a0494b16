"""``params`` become a struct, or every mistake in them is named."""

import json
import time
from typing import Annotated

import pytest
from msgspec import Meta

from appliance.model.errors import InvalidRequest
from appliance.transports.rpc.method import NoParams, Params
from appliance.transports.rpc.reading import read_params


class Inner(Params, frozen=True):
    deep_name: str


class Sample(Params, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    limit: Annotated[int, Meta(ge=1, le=9)] = 3
    either: int | str | None = None
    items: tuple[Inner, ...] = ()
    flag: bool = False


@pytest.mark.parametrize("raw", [None, {}])
def test_nothing_is_an_empty_object(raw: object) -> None:
    assert read_params(NoParams, raw, method="health") == NoParams()


def test_names_are_those_of_the_clients() -> None:
    params = read_params(Sample, {"name": "x", "items": [{"deepName": "y"}]}, method="m")

    assert params == Sample(name="x", items=(Inner(deep_name="y"),))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ([], "at root: must be object"),
        ("x", "at root: must be object"),
        (0, "at root: must be object"),
        ({}, "at root: must have required property 'name'"),
        ({"name": 7}, "at /name: must be string"),
        ({"name": ""}, "at /name: must have length >= 1"),
        ({"name": "x", "limit": 0}, "at /limit: must be >= 1"),
        ({"name": "x", "limit": 2.5}, "at /limit: must be integer"),
        ({"name": "x", "limit": True}, "at /limit: must be integer"),
        ({"name": "x", "either": []}, "at /either: must be integer or string or null"),
        ({"name": "x", "flag": 1}, "at /flag: must be boolean"),
        ({"name": "x", "items": {}}, "at /items: must be array"),
        ({"name": "x", "items": [{"deepName": 1}]}, "at /items/0/deepName: must be string"),
        ({"name": "x", "zzz": 1}, "at root: unexpected property 'zzz'"),
        ({"name": "x", "deep_name": 1}, "at root: unexpected property 'deep_name'"),
        ({"name": "x", "__proto__": {}}, "at root: unexpected property '__proto__'"),
    ],
)
def test_a_mistake_is_named_in_the_clients_words(raw: object, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_params(Sample, raw, method="m")

    assert caught.value.detail == f"invalid m params: {text}"


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_params(Sample, {"limit": 0, "zzz": 1}, method="m")

    assert {each.field for each in caught.value.fields} == {"name", "limit", "zzz"}
    assert caught.value.detail.count(";") == 2


def test_of_a_million_unknown_members_a_few_are_named() -> None:
    raw: dict[str, object] = {f"limit{number}": 1 for number in range(200_000)}
    raw["limit"] = 0

    began = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        read_params(Sample, raw, method="m")

    assert time.process_time() - began < 1
    assert {"limit", "name"} <= {each.field for each in caught.value.fields}
    assert len(caught.value.fields) < 30
    assert len(json.dumps(caught.value.detail)) < 3_000


def test_a_long_name_is_quoted_in_part() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_params(Sample, {"name": "x", "z" * 100_000: 1}, method="m")

    assert len(caught.value.detail) < 200
