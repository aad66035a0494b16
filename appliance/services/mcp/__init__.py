"""Tools of a tenant's MCP servers.

A server is hostile: what it says is bounded, marked, and never loosens a policy. The SDK is
imported when the first server is needed, because that takes a second.
"""
