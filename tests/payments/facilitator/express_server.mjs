// Another seller's server with the official middleware for Express. FACILITATOR, KEY, PAYEE and PORT come from outside.
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const { FACILITATOR, KEY, PAYEE, PORT } = process.env;
const credential = { Authorization: `Bearer ${KEY}` };
const facilitator = new HTTPFacilitatorClient({
  url: FACILITATOR,
  createAuthHeaders: async () => ({ verify: credential, settle: credential, supported: credential }),
});
const server = new x402ResourceServer(facilitator).register("eip155:84532", new ExactEvmScheme());
const accepts = { scheme: "exact", price: "$0.01", network: "eip155:84532", payTo: PAYEE };

let served = 0;
const app = express();
app.use(paymentMiddleware({ "GET /weather": { accepts, description: "Weather" } }, server));
app.get("/weather", (_, answer) => answer.json({ weather: "fine", served: ++served }));
app.listen(Number(PORT), "127.0.0.1", () => console.log("ready"));
