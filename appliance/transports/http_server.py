"""Hypercorn as this gateway runs it; ``reference`` values are measured in the benchmarks."""

import time
from email.utils import formatdate

from hypercorn.config import Config, Sockets

from appliance.config.schema import ServerConfig

_HANDSHAKE_SECONDS = 10.0
_LARGEST_HEAD = 16 * 1024  # bytes of request line and headers


class GatewayConfig(Config):
    """Hypercorn's settings, with a ``date`` header that is written once a second."""

    _dated = (0, b"")

    def create_sockets(self) -> Sockets:
        # For workers, which we have none of, Hypercorn lets every child process inherit its
        # listening sockets: a sandbox could accept the requests of other tenants.
        sockets = super().create_sockets()
        for listening in (*sockets.secure_sockets, *sockets.insecure_sockets):
            listening.set_inheritable(False)
        return sockets

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        if self.include_server_header or self.alt_svc_headers:
            return super().response_headers(protocol)
        now = int(time.time())
        if self._dated[0] != now:
            self._dated = (now, formatdate(now, usegmt=True).encode())
        return [(b"date", self._dated[1])]


def hypercorn_config(server: ServerConfig, *, bind: str) -> Config:
    """How ``bind`` is served.

    ``keep_alive_timeout`` is longer than that of usual clients (5 to 60 s), so
    that a connection is closed by whoever opened it; Hypercorn's own limit of
    1,000 requests a connection would look like a reset to load balancers.
    """
    config = GatewayConfig()
    config.bind = [bind]
    config.backlog = 1024
    config.keep_alive_timeout = server.keep_alive_timeout
    config.keep_alive_max_requests = 10_000_000
    config.graceful_timeout = server.drain_timeout
    config.ssl_handshake_timeout = _HANDSHAKE_SECONDS
    config.h11_max_incomplete_size = _LARGEST_HEAD
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.accesslog = None
    config.errorlog = None
    if server.tls is not None:
        config.certfile = str(server.tls.cert)
        config.keyfile = str(server.tls.key)
    return config
