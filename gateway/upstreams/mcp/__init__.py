"""MCP servers of publishers: JSON-RPC messages and event streams as they stand on the wire, and sessions of our own.

What does not live here: what a message costs and who may send it (gateway/proxy/mcp).
"""
