"""Buy one answer from a running development gateway with the official x402 client: a wallet, and no account.

    make run CHAIN=1                      in another terminal
    .venv/bin/pip install "x402[evm,httpx]==2.25.0"
    .venv/bin/python scripts/pay.py [DATA_DIRECTORY] [PATH]

The wallet is the first funded one of the local chain, or that whose key PAYER_KEY holds. Exits non-zero with one line
when something is not as promised. What it does by hand is only to look at the 402 first, and at the balance.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

try:
    import httpx
    from eth_account import Account
    from x402 import x402Client
    from x402.http.clients.httpx import x402HttpxClient
    from x402.mechanisms.evm.exact import ExactEvmScheme
except ImportError as error:
    sys.exit(f'pay: {error}; install the official client: pip install "x402[evm,httpx]==2.25.0"')

BALANCE_OF = "0x70a08231"


def said(header: str) -> dict[str, Any]:
    """Return what a header of x402 says."""
    return json.loads(base64.b64decode(header))


async def balance(http: httpx.AsyncClient, chain: dict[str, Any], wallet: str) -> int:
    """Return what a wallet holds of USDC, in atomic units, as its chain says."""
    call = {"to": chain["usdc"], "data": BALANCE_OF + wallet[2:].lower().rjust(64, "0")}
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}
    return int((await http.post(chain["rpc_url"], json=request)).json()["result"], 16)


async def main() -> None:
    """Look at the 402, let the client pay, and see the balance go down by the price."""
    running = json.loads((Path(sys.argv[1] if len(sys.argv) > 1 else ".tollway") / "dev.json").read_text())
    chain = running.get("chain")
    assert chain, "this gateway has no chain: start it by `make run CHAIN=1`"
    key = os.environ.get("PAYER_KEY") or next(iter(chain["funded_keys"]), "")
    assert key, "set PAYER_KEY to the private key of a wallet with USDC on that chain"
    wallet = Account.from_key(key)
    url = running["url"] + (sys.argv[2] if len(sys.argv) > 2 else running["demo"]["example"])
    async with httpx.AsyncClient(timeout=30) as http:
        asked = await http.get(url)
        assert asked.status_code == 402, f"{url} answered {asked.status_code}"
        offer = said(asked.headers["payment-required"])["accepts"][0]
        print(f"402 from {url}")
        print(f"  asks for {offer['amount']} of {offer['asset']} on {offer['network']}, to {offer['payTo']}")
        before = await balance(http, chain, wallet.address)
        client = x402Client()
        client.register("eip155:*", ExactEvmScheme(wallet))
        async with x402HttpxClient(client, timeout=60) as paying:
            answer = await paying.get(url)
            body = await answer.aread()
        assert answer.status_code == 200, f"the paid call answered {answer.status_code}: {body[:300]!r}"
        settled = said(answer.headers["payment-response"])
        print(f"200, {len(body)} bytes, X-Cost {answer.headers['x-cost']} {answer.headers['x-cost-asset']}")
        print(f"  settled by {settled['transaction']}")
        after = await balance(http, chain, wallet.address)
        assert before - after == int(offer["amount"]), f"the wallet paid {before - after}"
        print(f"  {wallet.address} had {before} and has {after} (atomic units of USDC)")
        status = await http.get(f"{running['url']}/payments/{answer.headers['x-request-id']}")
        print(f"  {status.text}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except AssertionError as failure:
        sys.exit(f"pay: {failure}")
