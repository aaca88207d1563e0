// Holds sockets of npm's socket.io-client, as its input says, and prints what happens to them as lines of JSON.
//
// Input, one JSON object in each line: {"do": "open", "name", "url", "options"}, and of an open socket by its name
// {"do": "drop" | "close" | "tell"} or {"do": "emit", "event", "args"}.
// Output: {"name", "what": "connect" | "disconnect" | "refused" | "event" | "ack" | "state", ...}.

import { createInterface } from "node:readline";

import { io } from "socket.io-client";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const sockets = new Map();

const actions = {
  open({ name, url, options }) {
    // Sockets of one address would else share a connection.
    const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 150, ...options });
    sockets.set(name, socket);
    socket.on("connect", () => say({ name, what: "connect", id: socket.id, recovered: socket.recovered }));
    socket.on("disconnect", (reason) => say({ name, what: "disconnect", reason }));
    socket.on("connect_error", (error) => say({ name, what: "refused", reason: error.data ?? error.message }));
    socket.onAny((event, ...args) => say({ name, what: "event", event, args }));
  },
  drop({ socket }) {
    // Neither side hears a goodbye; a poll under way ends with it.
    const { transport } = socket.io.engine;
    if (transport.ws) transport.ws.terminate();
    else transport.onError("dropped by the test");
  },
  close({ socket }) {
    socket.disconnect();
  },
  tell({ name, socket }) {
    say({ name, what: "state", id: socket.id, pid: socket._pid ?? null, offset: socket._lastOffset ?? null });
  },
  async emit({ name, socket, event, args }) {
    say({ name, what: "ack", event, answer: await socket.timeout(5000).emitWithAck(event, ...args) });
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await actions[command.do]({ ...command, socket: sockets.get(command.name) });
}
process.exit(0);
