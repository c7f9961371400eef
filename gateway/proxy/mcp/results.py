"""What a tool's answer means: whether it brings anything, and what an error of JSON-RPC is told as."""

from __future__ import annotations

from gateway.billing.prepaid_credits import Ending
from gateway.errors import McpRefused
from gateway.upstreams.mcp.messages import Message, fields_of


def why_nothing(result: Message) -> Ending | None:
    """Return why a result costs nothing, or None: the tool failed, or asks for input before it does anything."""
    if result.get("isError") is True:
        return "tool_error"
    return "input_required" if result.get("resultType") == "input_required" else None


def refused(response: Message, status: int) -> McpRefused:
    """Return what is answered when the server answers with an error of JSON-RPC."""
    error = fields_of(response.get("error"))
    code, message = error.get("code"), error.get("message")
    said: Message = {"code": code if isinstance(code, int) else -32603, "message": str(message)[:1_000]}
    if "data" in error:
        said["data"] = error["data"]
    return McpRefused(
        f"The publisher's server refuses the call: {said['message']}; you were not charged.",
        mcp_error=said,
        upstream_status=status,
    )
