"""The paid path of MCP publishers, after the caller is known and within its limits.

    seller.py    the door: which operation a request is; what is free has its end here
    request.py   what is asked: paths, messages, session ids; strict
    reply.py     the pipeline's answers as JSON-RPC, for MCP clients
    line.py      how a tool call reaches its server; the call itself is kinds/tool.py
    results.py   what a tool's answer means
    passage.py   what is free at the MCP endpoint and passes through
    listing.py   tools and resources by plain HTTP, and what tools cost
    upstream.py  requests to the publisher's server

Only tools cost something. docs/mcp.md is the reader's side of it.
"""
