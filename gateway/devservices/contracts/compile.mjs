// Compiles Permit2Proxies.sol into permit2_proxies.json:
//   npm install --ignore-scripts solc@0.8.30 && node compile.mjs     (in a scratch directory with a copy of both files)
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const input = {
  language: "Solidity",
  sources: { "Permit2Proxies.sol": { content: readFileSync("Permit2Proxies.sol", "utf8") } },
  settings: {
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["evm.deployedBytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const error of output.errors ?? []) console.error(error.formattedMessage);
const made = output.contracts["Permit2Proxies.sol"];
const code = (name) => made[name].evm.deployedBytecode.object;
writeFileSync("permit2_proxies.json", JSON.stringify({ exact: code("Exact"), upto: code("Upto") }, null, 1) + "\n");
