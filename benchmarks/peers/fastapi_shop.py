"""A seller on the official Python SDK: FastAPI, its x402 middleware, and a handler that fetches from the upstream.

FACILITATOR, PAYEE, PORT and UPSTREAM come from the environment; KEY where the facilitator wants an API key.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI, Response
from x402.http import AuthHeaders, FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.mechanisms.evm.exact import ExactEvmServerScheme
from x402.server import x402ResourceServer

NETWORK = "eip155:84532"


class Credentials:
    """An API key, as the official client asks for it."""

    def get_auth_headers(self) -> AuthHeaders:
        """Return the same header for every call."""
        header = {"Authorization": f"Bearer {os.environ['KEY']}"}
        return AuthHeaders(verify=header, settle=header, supported=header)


def application() -> FastAPI:
    """Return the seller's application."""
    provider = Credentials() if os.environ.get("KEY") else None
    config = FacilitatorConfig(url=os.environ["FACILITATOR"], auth_provider=provider, timeout=60)
    server = x402ResourceServer(HTTPFacilitatorClient(config))
    server.register("eip155:*", ExactEvmServerScheme())
    accepts = {"scheme": "exact", "payTo": os.environ["PAYEE"], "price": "$0.01", "network": NETWORK}
    routes: Any = {"GET /x": {"accepts": accepts}}
    upstream = f"{os.environ['UPSTREAM']}/paid/x"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(PaymentMiddlewareASGI, routes=routes, server=server)

    @app.get("/x")
    async def sell() -> Response:  # pyright: ignore[reportUnusedFunction]
        async with app.state.session.get(upstream) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(application(), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
