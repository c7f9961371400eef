// Express with http-proxy-middleware in front of the upstream, as its documentation sets it up, with kept connections.
// PORT and UPSTREAM come from the environment. It charges nothing and checks nobody.
import http from "node:http";
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";

const { PORT, UPSTREAM } = process.env;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1024, maxFreeSockets: 1024 });
const app = express();
app.disable("x-powered-by");
app.use(createProxyMiddleware({ target: UPSTREAM, agent }));
const server = app.listen(Number(PORT), "127.0.0.1");
server.keepAliveTimeout = 60_000;
