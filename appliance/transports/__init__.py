"""The doors: HTTP and WebSocket.

A door parses, authenticates, authorises, calls one service and renders what it
returns; it holds no business rule. The routes that spend money on every call
(``openai``) are raw ASGI in front of Quart-Trio (``control``), which keeps all
the others: the framework costs as much as a whole completion does here.
"""
