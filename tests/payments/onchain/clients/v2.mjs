// Buys URL once with the official JavaScript client of version 2, and prints what came of it as JSON.
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

const { KEY, URL: url, METHOD = "GET", BODY } = process.env;
const client = new ExactEvmScheme(privateKeyToAccount(KEY));
const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:84532", client }] });
const answer = await pay(url, { method: METHOD, body: BODY });
const settled = answer.headers.get("PAYMENT-RESPONSE");
console.log(
  JSON.stringify({
    status: answer.status,
    body: await answer.text(),
    settled: settled && decodePaymentResponseHeader(settled),
  }),
);
