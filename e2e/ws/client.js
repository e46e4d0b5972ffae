// Drives one connection of the npm package "ws" by lines: each line of the
// standard input is an order, each line of the standard output an event, both
// JSON. The other client, ../websockets_client.py, speaks the same lines.
//
//   node client.js URL [HEADER=VALUE]...
//
// The environment's DEFLATE, JSON, is the option perMessageDeflate, and SUBPROTOCOLS, JSON, a list of what to offer.
//
// orders:  {"op":"text","data":""}  {"op":"binary","data":base64}  {"op":"fragments","data":[text...]}
//          {"op":"ping","data":""}  {"op":"close","code":1000,"reason":""}
// events:  {"ev":"open","data":extensions,"reason":subprotocol}  {"ev":"text","data":""}  {"ev":"binary","data":base64}  {"ev":"ping"}
//          {"ev":"pong","data":""}  {"ev":"close","code":1000,"reason":""}
//          {"ev":"refused","status":503}  {"ev":"fault","data":""}
"use strict";

const readline = require("node:readline");
const WebSocket = require("ws");

const [url, ...headers] = process.argv.slice(2);
const ws = new WebSocket(url, JSON.parse(process.env.SUBPROTOCOLS || "[]"), {
  headers: Object.fromEntries(headers.map((h) => [h.slice(0, h.indexOf("=")), h.slice(h.indexOf("=") + 1)])),
  maxPayload: 0,
  perMessageDeflate: JSON.parse(process.env.DEFLATE || "true"),
});

const tell = (ev, more) => process.stdout.write(JSON.stringify({ ev, ...more }) + "\n");

ws.on("open", () => tell("open", { data: ws.extensions, reason: ws.protocol }));
ws.on("message", (data, isBinary) => {
  if (isBinary) tell("binary", { data: data.toString("base64") });
  else tell("text", { data: data.toString() });
});
ws.on("ping", () => tell("ping"));
ws.on("pong", (data) => tell("pong", { data: data.toString() }));
ws.on("unexpected-response", (request, response) => {
  tell("refused", { status: response.statusCode });
  request.destroy();
});
ws.on("error", (err) => tell("fault", { data: String(err) }));
ws.on("close", (code, reason) => tell("close", { code, reason: reason.toString() }));

const orders = {
  text: (o) => ws.send(o.data),
  binary: (o) => ws.send(Buffer.from(o.data, "base64")),
  fragments: (o) => o.data.forEach((part, i) => ws.send(part, { fin: i === o.data.length - 1 })),
  ping: (o) => ws.ping(o.data),
  close: (o) => ws.close(o.code, o.reason),
};

readline.createInterface({ input: process.stdin })
  .on("line", (line) => { const o = JSON.parse(line); orders[o.op](o); })
  .on("close", () => process.exit(0));
