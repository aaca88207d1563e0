// Opens sockets with npm's client as it comes, and prints what each of them hears as lines of JSON:
// {socket, heard} for an event of the log, {socket, at, ...} for its greetings, resets, refusals and farewells.
//
// node sockets.mjs http://127.0.0.1:8000 sockets.json
//
// The file lists {connection, namespace, token, transports}; sockets of one connection share it.

import { readFileSync } from "node:fs";
import { Manager } from "socket.io-client";

const url = process.argv[2];
const sockets = JSON.parse(readFileSync(process.argv[3], "utf8"));

let lines = [];
function say(line) {
  if (lines.length === 0) {
    setImmediate(() => {
      process.stdout.write(lines.join("\n") + "\n");
      lines = [];
    });
  }
  lines.push(JSON.stringify(line));
}

const connections = new Map();
function connection({ connection: name, transports }) {
  if (!connections.has(name)) {
    // Quicker than by default, or a test would spend its time waiting.
    const patience = { reconnectionDelay: 200, reconnectionDelayMax: 2000, timeout: 5000 };
    connections.set(name, new Manager(url, { transports, ...patience }));
  }
  return connections.get(name);
}

for (const [number, spec] of sockets.entries()) {
  const socket = connection(spec).socket(spec.namespace, { auth: { token: spec.token, recovery: true } });
  socket.onAny((event, body) => {
    if (event === "connected") {
      say({ socket: number, at: "greeting", seq: body.seq, recovered: socket.recovered });
    } else if (event === "rt:reset") {
      say({ socket: number, at: "reset", reason: body.reason });
    } else if (event.startsWith("auth:")) {
      say({ socket: number, at: "refusal", reason: event });
    } else if (Number.isInteger(body?.seq)) {
      say({ socket: number, heard: body.seq });
    }
  });
  socket.on("disconnect", (reason) => say({ socket: number, at: "farewell", reason }));
  socket.on("connect_error", (error) => {
    // Without data it is the network's; the client says then that it will try again.
    if (!socket.active) say({ socket: number, at: "refusal", reason: JSON.stringify(error.data ?? error.message) });
  });
}
