"""Patches: null removes, mappings merge, lists of things with an id merge item by item."""

from typing import Any

import pytest

from appliance.config.patching import apply_patch
from appliance.model.errors import ConfigInvalid

ITEMS = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1, "b": 2}, {"a": None, "c": 3}, {"b": 2, "c": 3}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": None}}, {"a": {"x": 1}}),
        ({"a": 1}, {"a": {"x": None, "y": 2}}, {"a": {"y": 2}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        (
            {"l": ITEMS},
            {"l": [{"id": "b", "x": None, "y": 5}, {"id": "c"}]},
            {"l": [{"id": "a", "x": 1}, {"id": "b", "y": 5}, {"id": "c"}]},
        ),
        ({"l": ITEMS}, {"l": [{"x": 1}]}, {"l": [{"x": 1}]}),
        ({"l": []}, {"l": ITEMS}, {"l": ITEMS}),
        ({"l": ITEMS}, {"l": []}, {"l": ITEMS}),
        ({"l": ITEMS}, {"l": None}, {}),
    ],
)
def test_a_patch_changes_what_it_names(
    target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = repr((target, patch))

    assert apply_patch(target, patch) == result
    assert repr((target, patch)) == before


def test_a_list_that_is_to_be_replaced_is() -> None:
    patched = apply_patch(
        {"a": {"l": ITEMS}}, {"a": {"l": [{"id": "c"}]}}, replace_paths=["a.l", "a.none"]
    )

    assert patched == {"a": {"l": [{"id": "c"}]}}


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"l\[1\]\.id"):
        apply_patch({"l": ITEMS}, {"l": [{"id": "a"}, {"id": "a"}]})
