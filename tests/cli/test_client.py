import httpx
import pytest
from click.testing import CliRunner

from appliance.cli.main import main
from tests.cli.conftest import Cli


class Dead(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens", request=request)


def test_a_gateway_that_is_not_there_has_an_exit_code_of_its_own() -> None:
    arguments = ["tenants", "list", "--url", "http://operator:hunter2@gateway.test:1"]
    result = CliRunner().invoke(main, arguments, obj=Dead())

    assert result.exit_code == 5
    assert "no gateway answers at http://gateway.test:1" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("url", ["gateway.test", "ftp://gateway.test", "http://", "http://[::1"])
def test_an_address_that_is_none_is_a_usage_error(cli: Cli, url: str) -> None:
    assert cli.run("tenants", "list", "--url", url).exit_code == 2


def test_an_answer_that_is_not_ours_is_a_failure(cli: Cli) -> None:
    async def door(_scope: object, _receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"<h1>Oops</h1>"})

    cli.door = door
    result = cli.run("tenants", "list")

    assert result.exit_code == 1
    assert result.stderr == "openclawmu: the gateway answered 500\n"
