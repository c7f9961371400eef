// What a page is made of that buys with the official client: bundled by esbuild, and run in a browser.
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

window.buy = async (url, key) => {
  const client = new ExactEvmScheme(privateKeyToAccount(key));
  const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:84532", client }] });
  const answer = await pay(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  const settled = answer.headers.get("PAYMENT-RESPONSE");
  return {
    status: answer.status,
    body: await answer.text(),
    settled: settled && decodePaymentResponseHeader(settled),
    cost: answer.headers.get("X-Cost"),
    id: answer.headers.get("X-Request-Id"),
  };
};
