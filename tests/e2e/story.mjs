// Registers a company over REST, connects in every way that released clients use (contract.md 7.1), and prints what
// each socket hears as lines of JSON: {socket, event, data}. Ends when the company's site is ready.
//
// node story.mjs http://127.0.0.1:8000

import { io } from "socket.io-client";

const url = process.argv[2];
const say = (line) => console.log(JSON.stringify(line));

const unique = crypto.randomUUID().slice(0, 8);
const response = await fetch(`${url}/api/v1/auth/register`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    email: `node-${unique}@example.org`,
    password: "correct horse",
    full_name: "Nora Node",
    company_name: `Node ${unique}`,
  }),
});
const { data } = await response.json();
say({ socket: "REST", event: response.status, data });
const token = data.access_token;

const websocket = { transports: ["websocket"] };
const ways = {
  // The Flutter client, REALTIME.md and the sample Flutter client.
  "flutter": [`${url}/ws`, { path: "/socket.io", auth: { token } }],
  "flutter, websocket only": [`${url}/ws`, { path: "/socket.io", auth: { token }, ...websocket }],
  // The API report.
  "report": [`${url}/ws`, { auth: { token } }],
  "report, notifications": [`${url}/ws/notifications`, { auth: { token } }],
  "report, provisioning": [`${url}/ws/provisioning`, { auth: { token } }],
  "report, billing": [`${url}/ws/billing`, { auth: { token } }],
  // The documented endpoint ws://host/ws/socket.io.
  "endpoint": [url, { path: "/ws/socket.io", auth: { token } }],
  "endpoint, provisioning": [`${url}/provisioning`, { path: "/ws/socket.io", auth: { token } }],
  // The namespaces without a prefix, and the token in its other places.
  "plain": [url, { auth: { token: `Bearer ${token}` } }],
  "plain, notifications": [`${url}/notifications`, { auth: { token } }],
  "query": [url, { query: { token } }],
  "header": [url, { extraHeaders: { Authorization: `Bearer ${token}` } }],
  "polling only": [url, { auth: { token }, transports: ["polling"] }],
};

const open = [];
const finished = new Set();

function connect(socket, [address, options]) {
  // Sockets of one address would else share a connection, and one test would stand for all.
  const client = io(address, { reconnection: false, forceNew: true, ...options });
  open.push(client);
  client.on("connect_error", (error) => say({ socket, event: "connect_error", data: error.data ?? error.message }));
  client.onAny((event, body) => {
    say({ socket, event, data: body });
    if (event === "status:completed" || event === "notification:new") finished.add(socket);
  });
  client.on("connected", async () => {
    say({ socket, event: "ack", data: await client.timeout(5000).emitWithAck("ping") });
    say({ socket, event: "refusal", data: await client.timeout(5000).emitWithAck("notification_read", {}) });
    say({ socket, event: "transport", data: client.io.engine.transport.name });
  });
}

function end(code) {
  for (const client of open) client.disconnect();
  process.exit(code);
}

for (const [socket, way] of Object.entries(ways)) connect(socket, way);
connect("stranger", [`${url}/ws`, { auth: { token: "forged" } }]);
connect("lost", [`${url}/nowhere`, { auth: { token } }]);

// The billing namespace has nothing to tell in this story.
const expected = Object.keys(ways).filter((socket) => !socket.includes("billing"));
setInterval(() => {
  // A moment more, because the last events of the story follow each other closely.
  if (expected.every((socket) => finished.has(socket))) setTimeout(() => end(0), 500);
}, 50);
setTimeout(() => end(1), 60_000);
