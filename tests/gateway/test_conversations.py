"""``/v1/conversations`` of a running gateway."""

from typing import Any

import pytest

from tests.gateway.conftest import Gateway, Tenant
from tests.gateway.responding import Client, text_of

PATH = "/v1/conversations"


@pytest.fixture
async def client(gateway: Gateway, acme: Tenant) -> Client:
    return Client(gateway, acme)


async def begin(client: Client, *said: str, **more: Any) -> dict[str, Any]:
    items = [{"role": "user", "content": text} for text in said]
    answer = await client.send("POST", PATH, {"items": items, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def said_in(client: Client, conversation: str) -> list[str]:
    page = await client.get(f"{PATH}/{conversation}/items?order=asc&limit=100")
    return [item["content"][0]["text"] for item in page["data"]]


async def test_it_is_begun_described_and_ended(client: Client) -> None:
    made = await begin(client, metadata={"topic": "tea"})
    path = f"{PATH}/{made['id']}"

    assert made["object"] == "conversation"
    assert made["metadata"] == {"topic": "tea"}
    assert await client.get(path) == made
    changed = await client.send("POST", path, {"metadata": {"topic": "milk"}})
    assert changed.json() == {**made, "metadata": {"topic": "milk"}}
    unsaid = await client.send("POST", path, {})
    assert unsaid.status_code == 400
    assert unsaid.json()["error"]["param"] == "metadata"
    assert (await client.get(path))["metadata"] == {"topic": "milk"}
    deleted = await client.send("DELETE", path)
    assert deleted.json() == {
        "id": made["id"], "object": "conversation.deleted", "deleted": True,
    }  # fmt: skip
    await client.get(path, status=404)


async def test_items_are_added_listed_and_removed(client: Client) -> None:
    made = await begin(client, "one")
    path = f"{PATH}/{made['id']}/items"

    added = await client.send(
        "POST", path, {"items": [{"role": "user", "content": text} for text in ("two", "three")]}
    )

    assert added.status_code == 200, added.text
    assert [item["content"][0]["text"] for item in added.json()["data"]] == ["two", "three"]
    assert await said_in(client, made["id"]) == ["one", "two", "three"]
    item = added.json()["data"][0]
    assert await client.get(f"{path}/{item['id']}") == item
    removed = await client.send("DELETE", f"{path}/{item['id']}")
    assert removed.json()["id"] == made["id"]
    await client.get(f"{path}/{item['id']}", status=404)
    assert await said_in(client, made["id"]) == ["one", "three"]
    again = await client.send("POST", path, {"items": [added.json()["data"][1]]})
    assert again.status_code == 409


async def test_responses_are_part_of_it(client: Client) -> None:
    made = await begin(client, "my name is Ada")

    answer = await client.create(
        "what is my name?", model="stub/assistant", conversation=made["id"]
    )
    once_more = await client.create(
        "really, what is my name?", model="stub/assistant", conversation={"id": made["id"]}
    )

    assert answer["conversation"] == {"id": made["id"]}
    assert "Ada" in text_of(answer)
    said = await said_in(client, made["id"])
    assert said == [
        "my name is Ada",
        "what is my name?",
        text_of(answer),
        "really, what is my name?",
        text_of(once_more),
    ]


async def test_what_is_not_stored_is_not_part_of_it(client: Client) -> None:
    made = await begin(client, "one")

    await client.create("two", conversation=made["id"], store=False)

    assert await said_in(client, made["id"]) == ["one"]


async def test_other_tenants_find_nothing(client: Client, gateway: Gateway) -> None:
    other = Client(gateway, await gateway.create("other"))
    made = await begin(client, "one")
    item = (await client.get(f"{PATH}/{made['id']}/items"))["data"][0]["id"]
    unknown = "conv_" + "0" * 32

    for method, rest, body in (
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [{"role": "user", "content": "x"}]}),
        ("GET", f"/items/{item}", None),
        ("DELETE", f"/items/{item}", None),
    ):
        theirs = await other.send(method, f"{PATH}/{made['id']}{rest}", body)
        nobodys = await other.send(method, f"{PATH}/{unknown}{rest}", body)
        assert theirs.status_code == nobodys.status_code == 404, (method, rest)
        assert theirs.text.replace(made["id"], unknown) == nobodys.text
    assert await said_in(client, made["id"]) == ["one"]


@pytest.mark.parametrize(
    "body",
    [
        {"items": "x"},
        {"items": [{"role": "nobody", "content": "x"}]},
        {"items": [{"type": "item_reference", "id": "msg_1"}]},
        {"items": [{"role": "user", "content": "x"}] * 101},
        {"metadata": {"k": 1}},
        {"metadata": {str(n): "x" for n in range(17)}},
        {"metadata": {"k": "x" * 513}},
        {"other": 1},
        [],
    ],
)
async def test_nonsense_is_refused(client: Client, body: Any) -> None:
    answer = await client.send("POST", PATH, body)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/conv_x/other", "/conv_x/items/a/b", "/%00", "/conv_x/items/%00", "//items"]
)
async def test_other_paths_are_not_found(client: Client, path: str) -> None:
    await client.get(PATH + path, status=404)


async def test_a_token_that_only_reads_changes_nothing(client: Client, gateway: Gateway) -> None:
    made = await begin(client, "one")
    answer = await client.send(
        "POST", "/v1/tenants/acme/tokens", {"label": "reader", "scopes": ["read"]}
    )
    assert answer.status_code == 201, answer.text
    reader = Client(gateway, Tenant("acme", answer.json()["token"]))

    assert (await reader.get(f"{PATH}/{made['id']}"))["id"] == made["id"]
    for method, rest in (("POST", ""), ("DELETE", ""), ("POST", "/items")):
        refused = await reader.send(method, f"{PATH}/{made['id']}{rest}", {})
        assert refused.status_code == 403, (method, rest)
