"""The paid path of MCP publishers, after the caller is known and within its limits.

    seller.py    the door: which operation a request is, and its way to the end
    request.py   what is asked: paths, messages, session ids; strict
    reply.py     the pipeline's answers as JSON-RPC, for MCP clients
    purchase.py  a tool call: price, payment, call, what is due, answer
    passage.py   what is free at the MCP endpoint and passes through
    listing.py   tools and resources by plain HTTP, and what tools cost
    upstream.py  requests to the publisher's server

Only tools cost something. docs/mcp.md is the reader's side of it.
"""
