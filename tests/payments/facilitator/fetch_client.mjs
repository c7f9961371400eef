// A buyer with the official client for fetch. URL and PRIVATE_KEY come from outside; prints what it got.
import { ExactEvmScheme } from "@x402/evm";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

const { URL: url, PRIVATE_KEY } = process.env;
const client = new ExactEvmScheme(privateKeyToAccount(PRIVATE_KEY));
const buy = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:84532", client }] });
const answer = await buy(url);
const settled = decodePaymentResponseHeader(answer.headers.get("PAYMENT-RESPONSE"));
console.log(JSON.stringify({ status: answer.status, body: await answer.json(), settled }));
