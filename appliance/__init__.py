"""OpenClawMU: an open, multi-tenant AI gateway that runs on your own metal.

The packages are layers, and imports point downwards only::

    cli          who starts it: one module per command
    transports   how others reach it: HTTP, WebSocket
    tenants      who keeps it running: the nursery of each tenant
    services     what can be done, in the product's words
    storage  providers    IO: files and SQLite; model APIs
    protocols    wire formats: bytes in, values out
    model        values and rules: no IO, no clock

``config`` and ``log`` stand beside the layers.
"""

__version__ = "0.1.0"
