"""A client of the running gateway, and the options by which a command finds it."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self

import click
import httpx
import trio

from appliance.cli.exits import OF_STATUS, CommandFailed, Exit

DEFAULT_URL = "http://127.0.0.1:18789"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
P = ParamSpec("P")


class Gateway:
    """A gateway somewhere, spoken to with one token.

    Every failure is a :exc:`CommandFailed` with the exit code it asks for.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        tenant: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"user-agent": "openclawmu-cli"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if tenant:
            headers["x-openclaw-tenant"] = tenant
        self._url = checked_url(url)
        # trust_env is off: a proxy meant for the web must not see an admin key
        # on its way to 127.0.0.1.
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers=headers,
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def get(self, path: str, **params: object) -> Any:
        return (await self._send("GET", path, params=_named(params))).json()

    async def text(self, path: str, **params: object) -> str:
        return (await self._send("GET", path, params=_named(params))).text

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return (await self._send("POST", path, json=body or {})).json()

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return (await self._send("PATCH", path, json=body)).json()

    async def delete(self, path: str, **params: object) -> None:
        await self._send("DELETE", path, params=_named(params))

    async def _send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        response = await self._exchange(self._http.build_request(method, path, **parts))
        if response.is_error:
            raise refusal(response)
        return response

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._http.send(request)
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc

    def _unreachable(self, error: httpx.TransportError) -> CommandFailed:
        reason = str(error) or type(error).__name__
        where = self._url.copy_with(username=None, password=None)
        text = f"no gateway answers at {where}: {reason}; is `openclawmu serve` running?"
        return CommandFailed(text, Exit.UNREACHABLE)


def checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise click.UsageError(f"--url: {exc}") from exc
    # OpenClaw's own clients have a ws:// address in the same variable.
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    if scheme not in {"http", "https"} or not url.host:
        raise click.UsageError("--url: must start with http:// or https:// and name a host")
    return url.copy_with(scheme=scheme)


def refusal(response: httpx.Response) -> CommandFailed:
    """What an error of the gateway means for the command."""
    code = OF_STATUS.get(response.status_code, Exit.FAILURE)
    return CommandFailed(_reason(response), code)


def _reason(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return f"the gateway answered {response.status_code}"
    error = body.get("error", body) if isinstance(body, dict) else {}
    detail = error.get("detail") or error.get("message") if isinstance(error, dict) else None
    if response.status_code == httpx.codes.UNAUTHORIZED and detail:
        return f"{detail}; give one with OPENCLAW_GATEWAY_TOKEN or --admin-key"
    return str(detail or f"the gateway answered {response.status_code}")


def _named(params: Mapping[str, object]) -> dict[str, str]:
    """Query parameters without those that were not given; ``from_`` is sent as ``from``."""
    return {
        name.rstrip("_"): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def gateway_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which a command finds its gateway: ``url`` and ``token``."""
    command = click.option(
        "--admin-key",
        "--token",
        "token",
        envvar="OPENCLAW_GATEWAY_TOKEN",
        show_envvar=True,
        help="The admin key or a tenant's token; ps shows it here, not in the variable.",
    )(command)
    return click.option(
        "--url",
        envvar="OPENCLAW_GATEWAY_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="Where the gateway is.",
    )(command)


def talks_to_gateway(
    command: Callable[Concatenate[Gateway, P], Awaitable[None]],
) -> Callable[..., None]:
    """Add ``--url`` and ``--admin-key`` to a command and run it with a :class:`Gateway`.

    ``ctx.obj`` may hold an httpx transport to use instead of the network.
    """

    @gateway_options
    @click.pass_context
    @wraps(command)
    def run(ctx: click.Context, /, *args: Any, url: str, token: str | None, **options: Any) -> None:
        tenant = options.pop("act_for", None)

        async def main() -> None:
            async with Gateway(url, token, tenant=tenant, transport=ctx.obj) as gateway:
                await command(gateway, *args, **options)

        trio.run(main)

    return run


json_option = partial(click.option, "--json", "as_json", is_flag=True, help="Print JSON.")
