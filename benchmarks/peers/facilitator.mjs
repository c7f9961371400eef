// The official JavaScript SDK's facilitator behind HTTP, on one key. Its receipts are polled for often, and nonces are
// counted here (viem's own manager): without it concurrent settlements take each other's. RPC, SIGNER and PORT come
// from the environment.
import express from "express";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const { PORT, RPC, SIGNER } = process.env;
const account = privateKeyToAccount(SIGNER, { nonceManager });
const transport = http(RPC);
const client = createWalletClient({ account, chain: baseSepolia, transport, pollingInterval: 50 }).extend(publicActions);
const signer = toFacilitatorEvmSigner({ ...client, address: account.address });
const facilitator = new x402Facilitator();
registerExactEvmScheme(facilitator, { signer, networks: "eip155:84532" });

const app = express();
app.use(express.json({ limit: "256kb" }));
const asked = ({ body }) => [body.paymentPayload, body.paymentRequirements];
app.get("/supported", (_, answer) => answer.json(facilitator.getSupported()));
app.post("/verify", async (request, answer) => answer.json(await facilitator.verify(...asked(request))));
app.post("/settle", async (request, answer) => answer.json(await facilitator.settle(...asked(request))));
app.listen(Number(PORT), "127.0.0.1");
