"""Refusals as answers: RFC 9457 problems, and the contract's 402 with its prepaid accept.

The 402 body is x402 v2's PaymentRequired with the contract's `seren` block: it says what the call costs, what there is,
what is missing and where to top up.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from gateway.catalog.assets import Asset
from gateway.catalog.snapshot import AssetPrice
from gateway.dates import http_date
from gateway.errors import InternalError, Problem
from gateway.json_text import json_text
from gateway.limits.policy import headers as limit_headers
from gateway.proxy.browsers import let_page_read
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.quote import prepaid_price
from gateway.proxy.unread import end_answer, may_come
from pricing.money import format_amount, round_up

OFFER_SECONDS = 300
FRAMING = (b"content-length", b"transfer-encoding", b"expect")


async def answer_problem(exchange: Exchange, problem: Problem) -> None:
    """Send a refusal. Only before the head has gone out."""
    headers, body = problem_answer(exchange, problem)
    await send_whole(exchange, problem.status, headers, body)


def problem_answer(exchange: Exchange, problem: Problem) -> tuple[HeaderPairs, bytes]:
    """Return the fields and body of a refusal."""
    request_id = str(exchange.id)
    body = json_text(problem.document(request_id))
    headers: HeaderPairs = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", request_id.encode()),
        (b"x-cost", str(problem.fields.get("cost", "0")).encode()),
    ]
    said = dict(problem.headers)
    if "ratelimit" not in said:
        headers.extend(limit_fields(exchange))
    if exchange.bytes_in and not exchange.body_ended:  # refused in the middle of an upload: wait for no next request
        said["Connection"] = "close"
    for name, value in said.items():
        if name != "Connection" or exchange.scope.get("http_version") not in ("2", "3"):  # they forbid the field
            headers.append((name.lower().encode(), value.encode()))
    return headers, body


async def turn_away(exchange: Exchange, problem: Problem) -> None:
    """Refuse a call of which nothing has been read yet."""
    for name, value in exchange.scope["headers"]:
        if name in FRAMING:
            exchange.fields[name] = value
    let_page_read(exchange)
    await answer_problem(exchange, problem)


async def answer_internal_error(exchange: Exchange) -> None:
    """Send the answer to a fault of ours: a request id, and nothing of the cause."""
    await answer_problem(exchange, InternalError("Something failed on our side; you were not charged."))


async def answer_payment_required(exchange: Exchange, public_url: str, *, available: int, error: str) -> None:
    """Send 402 with the prepaid accept (amounts exact, in decimals and atomic units of the priced asset)."""
    body = json_text(payment_required(exchange, public_url, available=available, error=error))
    headers: HeaderPairs = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", str(exchange.id).encode()),
        (b"x-cost", b"0"),
        *limit_fields(exchange),
    ]
    await send_whole(exchange, 402, headers, body)


def payment_required(exchange: Exchange, public_url: str, *, available: int, error: str) -> dict[str, Any]:
    """Return the 402 body for an exchange whose quote is known."""
    price = exchange.asset_price
    if price is None:
        raise RuntimeError("a call without a price cannot need a payment")
    publisher = exchange.sold
    return {
        "x402Version": 2,
        "error": error,
        "resource": {
            "url": f"{public_url}/publishers/{publisher.slug}{exchange.path.decode('latin-1')}",
            "description": f"{exchange.method} {publisher.name}",
            "mimeType": "application/json",
        },
        "accepts": [prepaid_accept(price, exchange.quote.amount, available, public_url)],
        "availableBalanceAtomic": available,
        "seren": {
            "payment_request_id": str(exchange.id),
            "publisher_id": str(publisher.id),
            "expires": int(time.time()) + OFFER_SECONDS,
            **estimate_member(exchange),
            **promised_member(exchange),
        },
    }


def promised_member(exchange: Exchange) -> dict[str, Any]:
    """Return by which rules of the publisher an answer would cost nothing, for who is about to pay."""
    refunds = exchange.refunds
    return {"refund_rules": refunds.promised, "free_when": refunds.free_when} if refunds.promised else {}


def estimate_member(exchange: Exchange) -> dict[str, Any]:
    """Return the contract's `estimate` of a planned query, in its primary asset; nothing for other calls."""
    price = prepaid_price(exchange.sold)
    if exchange.budget is None or price is None:
        return {}
    rows, rate, decimals = exchange.budget.shown, price.rows, price.asset.decimals
    total = rate.quote(rows).amount
    return {
        "estimate": {
            "asset_symbol": price.asset.symbol,
            "base_cost": format_amount(round_up(rows * rate.per_1000_rows, 1_000), decimals),
            "estimated_rows": rows,
            "markup_multiplier": str(Decimal(rate.markup.numerator) / rate.markup.denominator),
            "min_charge": format_amount(rate.minimum, decimals),
            "total_cost": format_amount(total, decimals),
            "total_cost_atomic": total,
        }
    }


def prepaid_accept(price: AssetPrice, required: int, available: int, public_url: str) -> dict[str, Any]:
    """Return the contract's offer to pay from a balance; amounts are atomic units of the priced asset."""
    amount = required
    if price.balances is not None:  # the publisher wants to see more than it takes
        required = max(required, price.balances.least)
    return prepaid_offer(price.asset, amount, required, available, public_url)


def prepaid_offer(asset: Asset, amount: int, required: int, available: int, public_url: str) -> dict[str, Any]:
    """Return what an amount asks of a balance, and by how much that falls short."""
    decimals, deficit = asset.decimals, max(required - available, 0)
    return {
        "scheme": "prepaid",
        "network": asset.network_id,
        "asset": asset.contract_address or asset.symbol,
        "amount": str(amount),
        "payTo": "tollway",
        "maxTimeoutSeconds": OFFER_SECONDS,
        "extra": {
            "requiredAmount": format_amount(required, decimals),
            "availableBalance": format_amount(available, decimals),
            "availableBalanceAtomic": available,
            "deficit": format_amount(deficit, decimals),
            "deficitAtomic": deficit,
            "assetSymbol": asset.symbol,
            "decimals": decimals,
            "topUp": {
                "balanceEndpoint": f"{public_url}/wallet/balance",
                "depositEndpoint": f"{public_url}/wallet/deposit",
            },
        },
    }


def limit_fields(exchange: Exchange) -> HeaderPairs:
    """Return what an answer says of the caller's rate limit, once that has been looked at."""
    return limit_headers(exchange.limit) if exchange.limit is not None else []


async def send_whole(exchange: Exchange, status: int, headers: HeaderPairs, body: bytes) -> None:
    """Send an answer of our own."""
    exchange.head_sent = True
    exchange.answered = status
    headers = [*headers, (b"date", http_date())]
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    body = b"" if exchange.method == "HEAD" else body
    if not exchange.body_ended and may_come(exchange.fields) and (b"connection", b"close") not in headers:
        await end_answer(exchange.send, exchange.receive, body)
    else:
        await exchange.send({"type": "http.response.body", "body": body})
