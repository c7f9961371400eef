"""Buys URL once with the official Python client of version 1 (x402 1.0.0), and prints what came of it as JSON."""

import asyncio
import json
import os

from eth_account import Account
from x402.clients.base import decode_x_payment_response
from x402.clients.httpx import x402HttpxClient


async def main() -> None:
    account = Account.from_key(os.environ["KEY"])
    async with x402HttpxClient(account=account, base_url="http://127.0.0.1:1", timeout=30) as client:
        answer = await client.request(
            os.environ.get("METHOD", "GET"), os.environ["URL"], content=os.environ.get("BODY")
        )
        body = (await answer.aread()).decode()
        settled = answer.headers.get("X-PAYMENT-RESPONSE")
        print(json.dumps({"status": answer.status_code, "body": body,
                          "settled": settled and decode_x_payment_response(settled)}))  # fmt: skip


asyncio.run(main())
