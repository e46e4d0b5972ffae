// The seed's server on socket.io, with the rooms and the protocol that it has
// itself; its echo is an event. As its page on memory advises, the request of
// the handshake is let go, and bufferutil is installed for speed.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const server = createServer();
const io = new Server(server, { serveClient: false });

io.engine.on("connection", (raw) => {
  raw.request = null;
});
io.on("connection", (socket) => {
  const outgoing = (content) => ({ from: socket.id, content });
  socket.on("chat", (content) => socket.broadcast.emit("chat", outgoing(content ?? "")));
  socket.on("join_room", (room) => socket.join(room));
  socket.on("room_message", (room, content) => socket.to(room).emit("room_message", outgoing(content)));
  socket.on("echo", (content) => socket.emit("echo", content));
});

const [host, port] = process.argv[2].split(":");
server.listen(port, host);
