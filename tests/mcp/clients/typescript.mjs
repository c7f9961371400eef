// The official TypeScript client: lists tools, calls two of them, reads a resource, gets a prompt, ends its session.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const { ENDPOINT, KEY } = process.env;
const transport = new StreamableHTTPClientTransport(new URL(ENDPOINT), {
  requestInit: { headers: { Authorization: `Bearer ${KEY}` } },
});
const client = new Client({ name: "test", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const progress = [];
const options = { onprogress: ({ progress: step }) => progress.push(step) };
const counted = await client.callTool({ name: "counted", arguments: { steps: 3 } }, undefined, options);
const failing = await client.callTool({ name: "failing", arguments: {} });
const resource = await client.readResource({ uri: "weather://stations" });
const prompt = await client.getPrompt({ name: "pack", arguments: { city: "Oslo" } });
await transport.terminateSession();
await client.close();
console.log(JSON.stringify({ tools, progress, counted, failing, resource, prompt }));
