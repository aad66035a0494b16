"""The Gateway's WebSocket: sockets, handshakes, connections and their backlog.

It parses, authenticates and authorises; what a method does is in ``rpc`` and
the services. A connection is one job of its tenant, so that whatever ends the
tenant's work ends its connections.
"""
