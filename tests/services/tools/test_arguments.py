"""Parameters that go by several names."""

from typing import Annotated

import pytest
from msgspec import UNSET, Meta, UnsetType

from appliance.services.tools.arguments import read_arguments, schema_of
from appliance.services.tools.base import ToolFailed, ToolParams


class Renaming(ToolParams, frozen=True, kw_only=True):
    path: str
    old_text: Annotated[str, Meta(min_length=1)] = "x"
    limit: int | UnsetType = UNSET


class Batch(ToolParams, frozen=True, kw_only=True):
    """Not for the model."""

    items: list[Renaming]


@pytest.mark.parametrize(
    "given",
    [
        {"path": "a", "oldText": "b"},
        {"file_path": "a", "old_string": "b"},
        {"filePath": "a", "old_text": "b", "limit": None},
    ],
)
def test_a_parameter_is_read_under_each_of_its_names(given: dict[str, object]) -> None:
    assert read_arguments(Renaming, given) == Renaming(path="a", old_text="b")


def test_the_parameters_own_name_wins() -> None:
    assert read_arguments(Renaming, {"file_path": "b", "path": "a"}).path == "a"


def test_the_objects_of_a_list_are_read_so_too() -> None:
    batch = read_arguments(Batch, {"items": [{"file_path": "a", "old_str": "b"}]})

    assert batch.items == [Renaming(path="a", old_text="b")]


def test_a_number_may_come_as_text() -> None:
    assert read_arguments(Renaming, {"path": "a", "limit": "7"}).limit == 7


@pytest.mark.parametrize(
    "given", [{}, {"path": 3}, {"path": "a", "oldText": ""}, {"path": "a", "x": 1}]
)
def test_what_is_wrong_is_said_with_the_parameters_there_are(given: dict[str, object]) -> None:
    with pytest.raises(ToolFailed, match="the parameters are limit, oldText, path"):
        read_arguments(Renaming, given)


def test_the_model_is_shown_the_parameters_own_names_only() -> None:
    schema = schema_of(Renaming)

    assert set(schema["properties"]) == {"path", "oldText", "limit"}
    assert schema["required"] == ["path"]
    assert "$defs" not in schema
    assert set(schema_of(Batch)["$defs"]) == {"Renaming"}
    assert "description" not in schema_of(Batch)
