// The seed's server on the npm package ws, as its README broadcasts: a loop over
// the clients, with a message that was encoded once. The optional package
// bufferutil, which its README names for speed, is installed beside it.
// Compression is off by default.
const { createServer } = require("node:http");
const { randomUUID } = require("node:crypto");
const { WebSocketServer, WebSocket } = require("ws");

const clients = new Set();
const rooms = new Map(); // name: set of clients

function publish(sender, msg_type, content, receivers) {
  const data = Buffer.from(JSON.stringify({ msg_type, from: sender.id, content }));
  for (const client of receivers) {
    if (client !== sender && client.readyState === WebSocket.OPEN) client.send(data, { binary: false });
  }
}

function handle(client, text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return;
  }
  const { msg_type, room, content } = message;
  if (msg_type === "chat") {
    publish(client, msg_type, content ?? "", clients);
  } else if (msg_type === "join_room" && room !== undefined) {
    if (!rooms.has(room)) rooms.set(room, new Set());
    rooms.get(room).add(client);
    client.rooms.add(room);
  } else if (msg_type === "room_message" && room !== undefined && content !== undefined) {
    publish(client, msg_type, content, rooms.get(room) ?? []);
  }
}

function remove(client) {
  clients.delete(client);
  for (const room of client.rooms) {
    rooms.get(room).delete(client);
    if (rooms.get(room).size === 0) rooms.delete(room);
  }
}

const server = createServer();
new WebSocketServer({ server }).on("connection", (client, request) => {
  client.on("error", () => {}); // "close" follows
  if (request.url === "/echo") {
    client.on("message", (data, isBinary) => client.send(data, { binary: isBinary }));
    return;
  }
  client.id = randomUUID();
  client.rooms = new Set();
  clients.add(client);
  client.on("message", (data, isBinary) => {
    if (!isBinary) handle(client, data.toString());
  });
  client.on("close", () => remove(client));
});

const [host, port] = process.argv[2].split(":");
server.listen(port, host);
