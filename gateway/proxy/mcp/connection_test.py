"""Trying a publisher's MCP server as its tools would be called: a session is opened, and the tools are listed.

It says no more of the answers than a version, numbers of tools and numbers of errors; of a publisher's server the
names and descriptions are kept, which its buyers are shown anyway. What does not live here: the way
to the server (upstreams/probe.py), and who may ask for a try.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.catalog.snapshot import Publisher
from gateway.catalog.tools import seen
from gateway.proxy.mcp.listing import Lists, priced_tools
from gateway.proxy.mcp.request import is_name
from gateway.upstreams.http.errors import BrokenBody, UpstreamError
from gateway.upstreams.http.request import Headers
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.messages import BadAnswer, Message, OtherVersion, Refused
from gateway.upstreams.mcp.sessions import HeaderPairs, Sessions
from gateway.upstreams.probe import Finding, McpFacts, Prober, explain, judge

ALL_SECONDS = 30.0  # for everything: somebody waits
LIST_SECONDS = 5.0  # for a list that is only shown
ACCEPT = (b"accept", b"application/json, text/event-stream")
KEY = ("the one server", None)


@dataclass(slots=True)
class _Asking:
    """Sends MCP's requests, and remembers the status of the last answer: it says why one is no MCP."""

    prober: Prober
    target: bytes
    headers: HeaderPairs
    status: int = 0

    async def send(self, method: bytes, body: bytes | None, fields: HeaderPairs) -> UpstreamResponse:
        typed = [] if body is None else [(b"content-type", b"application/json")]
        headers: Headers = [*self.headers, ACCEPT, (b"accept-encoding", b"identity"), *typed, *fields]
        answer = await self.prober.send(method, self.target, headers, body)
        if body is not None:  # the end of a session says nothing
            self.status = answer.status
        return answer


async def try_mcp(
    prober: Prober, target: bytes, headers: HeaderPairs, most: int, publisher: Publisher | None
) -> Finding:
    """Return what came of it. `publisher` is None as long as there is none. Raises nothing of its own."""
    finding, asking = prober.finding, _Asking(prober, target, headers)
    sessions = Sessions(most)
    try:
        async with asyncio.timeout(ALL_SECONDS):
            session = await sessions.session(KEY, asking.send)
            try:
                lists = Lists(sessions)
                tools = await lists.get(KEY[0], asking.send, "tools")
                if publisher is not None:
                    others = [await _list(lists, asking, kind) for kind in ("resources", "prompts")]
                    callable_ = [tool for tool in tools if is_name(tool.get("name"))]
                    finding.seen = seen(session.version.decode(), callable_, *others)
            finally:
                await sessions.end(KEY, asking.send)
        for_sale = None if publisher is None else len(priced_tools(publisher, tools))
        finding.mcp = McpFacts(session.version.decode(), len(tools), for_sale)
        _judge_tools(finding, finding.mcp, publisher)
    except TimeoutError:
        finding.outcome, finding.detail = "answer_timeout", "The server answers too slowly to list its tools in time."
    except (BadAnswer, BrokenBody) as error:
        _say_why(finding, asking.status, error)
    except UpstreamError as error:
        explain(finding, error)
    return finding


async def _list(lists: Lists, asking: _Asking, kind: str) -> list[Message] | None:
    """Return a list that no call depends on; None when the server does not say it."""
    status = asking.status
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await lists.get(KEY[0], asking.send, kind)
    except (UpstreamError, TimeoutError):
        return None
    finally:
        asking.status = status


def _judge_tools(finding: Finding, found: McpFacts, publisher: Publisher | None) -> None:
    known = f"The server speaks MCP {found.version}"
    if not found.tools:
        finding.outcome = "no_tools"
        finding.detail = f"{known} and lists no tools: nothing else is sold of an MCP server."
    elif publisher is not None and publisher.not_served is not None:
        finding.outcome = "nothing_for_sale"
        finding.detail = f"{known}, but no tool can be called: the publisher {publisher.not_served}."
    elif found.for_sale == 0:
        finding.outcome = "nothing_for_sale"
        finding.detail = (
            f"{known} and lists {found.tools} tools, none of them for sale: each is protected, or not documented under "
            "default_deny, or has no price."
        )
    else:
        sold = "" if found.for_sale is None else f", {found.for_sale} of them for sale"
        finding.outcome, finding.detail = "answered", f"{known} and lists {found.tools} tools{sold}."


def _say_why(finding: Finding, status: int, error: UpstreamError) -> None:
    """Tell a server that is none of MCP from one that refuses."""
    if status in (401, 403, 407) or status >= 500:
        judge(finding, status)
    elif isinstance(error, OtherVersion):
        finding.outcome, finding.detail = "mcp_version", f"This is an MCP server, but {error}."
    elif isinstance(error, Refused) and status < 300:
        finding.outcome, finding.detail = "mcp_refused", f"This is an MCP server, but {error}."
    elif 300 <= status < 400:
        finding.outcome = "not_mcp"
        finding.detail = f"The server answered {status}: redirects are not followed. Register their target."
    elif status >= 400:
        finding.outcome = "not_mcp"
        finding.detail = (
            f"The server answered {status} to initialize: there is no MCP server at this path, or it is one of the old "
            "HTTP+SSE transport. Register the endpoint of streamable HTTP."
        )
    else:
        finding.outcome, finding.detail = "not_mcp", f"The server answered {status}, but {error}."
