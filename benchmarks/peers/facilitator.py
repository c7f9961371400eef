"""The official Python SDK's facilitator behind HTTP: its web3 signer and `exact` scheme, on one key.

Its calls block, so they run on FastAPI's threads: on the event loop one settlement would hold up all others. RPC,
SIGNER and PORT come from the environment.
"""

from __future__ import annotations

import os
from typing import Any

import uvicorn
from fastapi import FastAPI
from x402 import x402FacilitatorSync
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.schemas import PaymentPayload, PaymentRequirements


def application() -> FastAPI:
    """Return the facilitator's application."""
    facilitator = x402FacilitatorSync()
    signer = FacilitatorWeb3Signer(os.environ["SIGNER"], os.environ["RPC"])
    register_exact_evm_facilitator(facilitator, signer, "eip155:84532")
    app = FastAPI()

    @app.get("/supported")
    def supported() -> Any:  # pyright: ignore[reportUnusedFunction]
        return facilitator.get_supported().model_dump(by_alias=True, exclude_none=True)

    @app.post("/verify")
    def verify(body: dict[str, Any]) -> Any:  # pyright: ignore[reportUnusedFunction]
        return facilitator.verify(*_asked(body)).model_dump(by_alias=True, exclude_none=True)

    @app.post("/settle")
    def settle(body: dict[str, Any]) -> Any:  # pyright: ignore[reportUnusedFunction]
        return facilitator.settle(*_asked(body)).model_dump(by_alias=True, exclude_none=True)

    return app


def _asked(body: dict[str, Any]) -> tuple[PaymentPayload, PaymentRequirements]:
    payload = PaymentPayload.model_validate(body["paymentPayload"])
    return payload, PaymentRequirements.model_validate(body["paymentRequirements"])


if __name__ == "__main__":
    uvicorn.run(application(), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
