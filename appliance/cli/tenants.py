"""``openclawmu tenants``: create, look at, change and remove tenants."""

from typing import Any

import click

from appliance.cli.client import Gateway, json_option, talks_to_gateway
from appliance.cli.output import hint, moment, print_facts, print_json, print_secret, print_table
from appliance.cli.parameters import DURATION, QUOTA, TENANT


@click.group(name="tenants", help="Create, list, change and remove tenants.")
def tenants() -> None:
    pass


@tenants.command(help="Create a tenant and print its first token, once.")
@click.argument("tenant", metavar="ID", type=TENANT)
@click.option("--name", help="A name for people.")
@click.option("--quota", "quotas", type=QUOTA, multiple=True, help="A limit; may be repeated.")
@click.option("--template", help="A template of the gateway's config.yaml.")
@json_option()
@talks_to_gateway
async def create(
    gateway: Gateway,
    *,
    tenant: str,
    name: str | None,
    quotas: tuple[tuple[str, Any], ...],
    template: str | None,
    as_json: bool,
) -> None:
    body: dict[str, Any] = {"id": tenant, "quotas": dict(quotas)}
    body |= {key: value for key, value in (("name", name), ("template", template)) if value}
    made = await gateway.post("/v1/tenants", body)
    if as_json:
        print_json(made)
        return
    hint(f"Tenant {made['tenant']['id']} is ready.")
    print_secret("Token", made["token"])


@tenants.command(name="list", help="List the tenants.")
@click.option("--query", "-q", help="Only those with this in their id or name.")
@json_option()
@talks_to_gateway
async def list_all(gateway: Gateway, *, query: str | None, as_json: bool) -> None:
    found: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await gateway.get("/v1/tenants", limit=1000, q=query, cursor=cursor)
        found += page["tenants"]
        broken = page["broken"]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    if as_json:
        print_json({"tenants": found, "broken": broken})
        return
    print_table(
        "Tenants",
        ("id", "name", "state", "tokens", "created"),
        [
            (each["id"], each["name"], _state(each), each["tokens"], moment(each["created_at"]))
            for each in found
        ],
    )
    for each in broken:
        hint(f"{each['id']} cannot be used: {each['reason']}")


@tenants.command(help="Show a tenant, its limits and where it stands.")
@click.argument("tenant", metavar="ID", type=TENANT)
@json_option()
@talks_to_gateway
async def info(gateway: Gateway, *, tenant: str, as_json: bool) -> None:
    record = await gateway.get(f"/v1/tenants/{tenant}")
    limits = await gateway.get(f"/v1/tenants/{tenant}/quotas")
    if as_json:
        print_json({"tenant": record, "quotas": limits})
        return
    print_facts(
        {
            "id": record["id"],
            "name": record["name"],
            "state": _state(record),
            "created": moment(record["created_at"]),
            "tokens": record["tokens"],
            **{key: value for key, value in limits.items() if value is not None},
        }
    )


async def _rotate(gateway: Gateway, *, tenant: str, grace: str | None, as_json: bool) -> None:
    body = {} if grace is None else {"grace": grace}
    minted = await gateway.post(f"/v1/tenants/{tenant}/rotate", body)
    if as_json:
        print_json(minted)
        return
    hint("The other tokens end " + (f"in {grace}." if grace else "now."))
    print_secret("Token", minted["token"])


def _rotation(name: str) -> click.Command:
    command = talks_to_gateway(_rotate)
    command = json_option()(command)
    command = click.option(
        "--grace", type=DURATION, help="How long the old tokens still work, such as 10m."
    )(command)
    command = click.argument("tenant", metavar="ID", type=TENANT)(command)
    return click.command(name, help="Replace all tokens by a new one and print it, once.")(command)


# Two names for one thing: the original calls it "token".
tenants.add_command(_rotation("rotate"))
tenants.add_command(_rotation("token"))


@tenants.command(help="Shut a tenant out and end what it runs.")
@click.argument("tenant", metavar="ID", type=TENANT)
@click.option("--reason", default="", help="Shown wherever the tenant is listed.")
@talks_to_gateway
async def disable(gateway: Gateway, *, tenant: str, reason: str) -> None:
    body = {"disabled": True, "disabled_reason": reason}
    await gateway.patch(f"/v1/tenants/{tenant}", body)
    hint(f"Tenant {tenant} is disabled.")


@tenants.command(help="Let a disabled tenant in again.")
@click.argument("tenant", metavar="ID", type=TENANT)
@talks_to_gateway
async def enable(gateway: Gateway, *, tenant: str) -> None:
    await gateway.patch(f"/v1/tenants/{tenant}", {"disabled": False})
    hint(f"Tenant {tenant} is enabled.")


@tenants.command(help="Remove a tenant. Its data is kept aside unless --delete-data is given.")
@click.argument("tenant", metavar="ID", type=TENANT)
@click.option("--force", is_flag=True, help="Really do it.")
@click.option("--delete-data", is_flag=True, help="Erase its data as well, for good.")
@talks_to_gateway
async def remove(gateway: Gateway, *, tenant: str, force: bool, delete_data: bool) -> None:
    if not force:
        raise click.UsageError("removing a tenant ends all it runs; add --force to do it")
    await gateway.delete(f"/v1/tenants/{tenant}", delete_data=delete_data)
    hint(f"Tenant {tenant} is gone; its data was {'erased' if delete_data else 'kept aside'}.")


def _state(record: dict[str, Any]) -> str:
    if not record["disabled"]:
        return "enabled"
    reason = record["disabled_reason"]
    return f"disabled: {reason}" if reason else "disabled"
