"""``openclawmu tokens``: the tokens of a tenant."""

from typing import Any
from urllib.parse import quote

import click

from appliance.cli.client import Gateway, json_option, talks_to_gateway
from appliance.cli.output import hint, moment, print_json, print_secret, print_table
from appliance.cli.parameters import DURATION, TENANT
from appliance.model.tokens import Scope


@click.group(name="tokens", help="Create, list and revoke a tenant's tokens.")
def tokens() -> None:
    pass


@tokens.command(help="Mint a token and print it, once.")
@click.argument("tenant", metavar="ID", type=TENANT)
@click.option("--label", default="", help="For people, to tell tokens apart.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="What it may be used for; may be repeated. Without one: full.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="A model it is for: provider/model, an alias, or with *; may be repeated. "
    "Without one: any.",
)
@click.option("--expires", type=DURATION, help="When it ends by itself, such as 30d.")
@json_option()
@talks_to_gateway
async def create(
    gateway: Gateway,
    *,
    tenant: str,
    label: str,
    scopes: tuple[str, ...],
    expires: str | None,
    models: tuple[str, ...],
    as_json: bool,
) -> None:
    body: dict[str, object] = {"label": label, "scopes": scopes or ("full",)}
    if models:
        body["models"] = models
    if expires is not None:
        body["expires_in"] = expires
    minted = await gateway.post(f"/v1/tenants/{tenant}/tokens", body)
    if as_json:
        print_json(minted)
        return
    hint(f"{minted['id']} ({', '.join(minted['scopes'])})")
    print_secret("Token", minted["token"])


@tokens.command(name="list", help="List a tenant's tokens; never their text.")
@click.argument("tenant", metavar="ID", type=TENANT)
@json_option()
@talks_to_gateway
async def list_all(gateway: Gateway, *, tenant: str, as_json: bool) -> None:
    found = await gateway.get(f"/v1/tenants/{tenant}/tokens")
    if as_json:
        print_json(found)
        return
    columns = ("id", "label", "scopes", "created", "expires", "last used")
    print_table(f"Tokens of {tenant}", columns, [_row(token) for token in found["tokens"]])


@tokens.command(help="End a token and everything that runs with it.")
@click.argument("tenant", metavar="ID", type=TENANT)
@click.argument("token_id", metavar="TOKEN_ID")
@talks_to_gateway
async def revoke(gateway: Gateway, *, tenant: str, token_id: str) -> None:
    await gateway.delete(f"/v1/tenants/{tenant}/tokens/{quote(token_id, safe='')}")
    hint(f"{token_id} is revoked.")


def _row(token: dict[str, Any]) -> list[object]:
    times = ("created_at", "expires_at", "last_used_at")
    named = [token[key] for key in ("id", "label", "scopes")]
    return [*named, *(moment(token[key]) for key in times)]
