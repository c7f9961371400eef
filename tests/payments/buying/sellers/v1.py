"""Sells /weather for $0.01 with the official middleware of version 1 (x402 1.0.0), on PORT, to PAYEE, by SECONDS."""

import os

import uvicorn
from fastapi import FastAPI
from x402.fastapi.middleware import require_payment

app = FastAPI()
app.middleware("http")(
    require_payment(
        path="/weather",
        price="$0.01",
        pay_to_address=os.environ["PAYEE"],
        network="base-sepolia",
        max_deadline_seconds=int(os.environ["SECONDS"]),
        facilitator_config={"url": os.environ["FACILITATOR"]},
    )
)


@app.get("/weather")
async def weather() -> dict[str, str]:
    """The goods."""
    return {"weather": "fine"}


uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
