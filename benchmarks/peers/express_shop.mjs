// A seller on the official JavaScript SDK: Express, its x402 middleware, and a handler that fetches from the upstream.
// FACILITATOR, PAYEE, PORT and UPSTREAM come from the environment; KEY where the facilitator wants an API key.
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const { FACILITATOR, KEY, PAYEE, PORT, UPSTREAM } = process.env;
const credential = KEY ? { Authorization: `Bearer ${KEY}` } : {};
const facilitator = new HTTPFacilitatorClient({
  url: FACILITATOR,
  createAuthHeaders: async () => ({ verify: credential, settle: credential, supported: credential }),
});
const server = new x402ResourceServer(facilitator).register("eip155:84532", new ExactEvmScheme());
const accepts = { scheme: "exact", price: "$0.01", network: "eip155:84532", payTo: PAYEE };

const app = express();
app.use(paymentMiddleware({ "GET /x": { accepts, description: "x" } }, server));
app.get("/x", async (_, answer) => {
  const got = await fetch(`${UPSTREAM}/paid/x`);
  answer.status(got.status).type("application/json").send(Buffer.from(await got.arrayBuffer()));
});
app.listen(Number(PORT), "127.0.0.1");
