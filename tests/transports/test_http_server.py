"""How the HTTP server is set up."""

import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from appliance.config.schema import ServerConfig, TlsConfig
from appliance.transports.http_server import hypercorn_config


def test_the_configs_limits_are_the_servers() -> None:
    server = ServerConfig(keep_alive_timeout=33.0, drain_timeout=4.0)

    config = hypercorn_config(server, bind="127.0.0.1:0")

    assert config.bind == ["127.0.0.1:0"]
    assert config.keep_alive_timeout == 33
    assert config.graceful_timeout == 4
    assert config.keep_alive_max_requests > 1_000_000, "a limit would look like a reset"
    assert config.h11_max_incomplete_size == 16 * 1024
    assert not config.ssl_enabled
    assert config.accesslog is None


def test_a_certificate_makes_it_tls() -> None:
    tls = TlsConfig(cert="/etc/openclaw/cert.pem", key="/etc/openclaw/key.pem")

    config = hypercorn_config(ServerConfig(tls=tls), bind="[::]:443")

    assert config.ssl_enabled
    assert (config.certfile, config.keyfile) == (str(Path(tls.cert)), str(Path(tls.key)))


@pytest.mark.parametrize("tls", [False, True])
def test_no_child_process_inherits_what_the_gateway_listens_on(
    tmp_path: Path, *, tls: bool
) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    files = TlsConfig(cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))
    server = ServerConfig(tls=files if tls else None)

    sockets = hypercorn_config(server, bind="127.0.0.1:0").create_sockets()

    (listening,) = sockets.secure_sockets if tls else sockets.insecure_sockets
    with listening:
        assert not listening.get_inheritable()


def test_an_answer_has_a_date_and_does_not_name_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_800_000_000.9
    monkeypatch.setattr(time, "time", lambda: now)
    config = hypercorn_config(ServerConfig(), bind="127.0.0.1:0")

    [(name, value)] = config.response_headers("h11")
    assert name == b"date"
    assert parsedate_to_datetime(value.decode()).timestamp() == 1_800_000_000
    assert config.response_headers("h11")[0][1] is value, "written once a second"

    now += 1
    later = config.response_headers("h11")[0][1]
    assert parsedate_to_datetime(later.decode()).timestamp() == 1_800_000_001


def test_other_headers_are_the_servers_own_business() -> None:
    config = hypercorn_config(ServerConfig(), bind="127.0.0.1:0")
    config.include_server_header = True

    assert b"server" in dict(config.response_headers("h11"))


def test_two_servers_do_not_share_a_date() -> None:
    first = hypercorn_config(ServerConfig(), bind="127.0.0.1:0")
    second = hypercorn_config(ServerConfig(), bind="127.0.0.1:0")
    first.response_headers("h11")

    assert vars(second).get("_dated") is None
