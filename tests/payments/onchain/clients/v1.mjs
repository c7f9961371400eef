// Buys URL once with the official JavaScript client of version 1, and prints what came of it as JSON.
import { decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";
import { createWalletClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const { KEY, URL: url, METHOD = "GET", BODY } = process.env;
const wallet = createWalletClient({ account: privateKeyToAccount(KEY), transport: http("http://127.0.0.1:1"), chain: baseSepolia });
const pay = wrapFetchWithPayment(fetch, wallet);
const answer = await pay(url, { method: METHOD, body: BODY });
const settled = answer.headers.get("X-PAYMENT-RESPONSE");
console.log(
  JSON.stringify({
    status: answer.status,
    body: await answer.text(),
    settled: settled && decodeXPaymentResponse(settled),
  }),
);
