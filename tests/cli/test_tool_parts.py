"""Which of the tools that look at the web a tenant has."""

from pathlib import Path

from appliance.cli.tool_parts import add_web_tools
from appliance.config.loading import parse_config
from appliance.model.session_keys import SessionKey
from appliance.services.tools.toolbox import Occasion, Toolbox
from appliance.storage.credentials import Vault
from tests.fakes.tenants import CONFIG, open_tenant

MAIN = Occasion(key=SessionKey("acme", "main", "main"))
SEARCH = "{search: {provider: searxng, base_url: 'https://search.example'}}"


async def test_a_tenant_can_fetch_from_the_start_and_search_once_that_is_set_up(
    tmp_path: Path,
) -> None:
    toolbox = Toolbox()
    add_web_tools(toolbox, vault=Vault(bytes(32)))
    async with open_tenant(tmp_path) as tenant:
        assert set((await toolbox.offer(tenant, MAIN)).tools) == {"image", "web_fetch"}

        tenant.config = parse_config(f"{CONFIG}  tools: {{web: {SEARCH}}}\n", name="config")
        assert set((await toolbox.offer(tenant, MAIN)).tools) == {
            "image",
            "web_fetch",
            "web_search",
        }

        closed = f"{CONFIG}  tools: {{deny: ['group:web'], web: {SEARCH}}}\n"
        tenant.config = parse_config(closed, name="config")
        assert set((await toolbox.offer(tenant, MAIN)).tools) == {"image"}
