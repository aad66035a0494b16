"""What the verbs of the tenant service answer with."""

import pytest

from appliance.model.quotas import Quotas
from appliance.model.tokens import TenantToken
from tests.services.tenancy import ADMIN, Tenancy


async def test_a_created_tenant_comes_with_the_text_of_its_first_token_and_only_then(
    tenancy: Tenancy,
) -> None:
    created = await tenancy.make("acme")

    token = TenantToken.parse(created.token_text)
    assert token is not None
    assert token.tenant == created.record.id == "acme"
    assert created.record.tokens == (created.token,)
    assert created.token.digest == token.digest()
    assert token.secret not in repr(created.record)
    assert token.secret.encode() not in tenancy.file("acme").read_bytes()


@pytest.mark.parametrize(
    ("limit", "pages"),
    [
        (1, [["acme"], ["beta"], ["gamma"]]),
        (2, [["acme", "beta"], ["gamma"]]),
        (3, [["acme", "beta", "gamma"]]),
    ],
)
async def test_a_page_tells_where_the_next_begins_and_the_last_one_tells_nothing(
    tenancy: Tenancy, limit: int, pages: list[list[str]]
) -> None:
    for name in ("gamma", "acme", "beta"):
        await tenancy.make(name)

    cursor, seen = None, []
    for _ in pages:
        page = await tenancy.tenants.list(ADMIN, limit=limit, cursor=cursor)
        seen.append([record.id for record in page.records])
        cursor = page.next_cursor

    assert seen == pages
    assert cursor is None
    assert page.broken == {}


async def test_a_page_names_the_tenants_that_cannot_be_read_and_why(tenancy: Tenancy) -> None:
    await tenancy.make("acme")
    await tenancy.make("beta")
    tenancy.file("acme").write_bytes(b"{")

    again = tenancy.restarted()
    page = await again.tenants.list(ADMIN)
    again.close()

    assert [record.id for record in page.records] == ["beta"]
    assert list(page.broken) == ["acme"]
    assert page.broken["acme"]


async def test_quotas_tell_what_is_set_apart_from_what_holds(tenancy: Tenancy) -> None:
    await tenancy.make("acme", quotas={"tokens_per_day": 5, "requests_per_minute": None})

    quotas = await tenancy.tenants.quotas(ADMIN, "acme")

    assert quotas.explicit == {"tokens_per_day": 5, "requests_per_minute": None}
    assert quotas.effective == Quotas(tokens_per_day=5, cost_per_month=50 * 10**9)
