// The peer: Node's socket.io with its Redis adapter, the same tokens, namespace and rooms, and the same orders on
// standard input as host.py, which explains them.
import { createServer } from "node:http";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { createAdapter } from "@socket.io/redis-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const NAME = "bench";
// What there is of a packet without its padding, as in events.py.
const AROUND = 65;
const WATCH_MS = 5;

const config = JSON.parse(process.env.PEER_CONFIG);
const publishing = createClient({ url: config.redis });
const subscribing = publishing.duplicate();
await Promise.all([publishing.connect(), subscribing.connect()]);

const http = createServer();
const io = new Server(http, { adapter: createAdapter(publishing, subscribing) });
const space = io.of(config.namespace);

space.use((socket, next) => {
  jwt.verify(socket.handshake.auth.token, config.secret, { algorithms: ["HS256"] }, (error, claims) => {
    if (error || claims.type !== "access") return next(new Error("refused"));
    socket.data = { user: claims.sub, tenant: claims.tenant_id };
    next();
  });
});

space.on("connection", (socket) => {
  const { user, tenant } = socket.data;
  socket.join([`user:${user}`, `tenant:${tenant}`, `tenant:${tenant}:user:${user}`]);
  socket.emit("connected", { message: "Successfully connected", user_id: user, tenant_id: tenant });
});

let stopped = false;
const delay = monitorEventLoopDelay({ resolution: WATCH_MS });

function say(number, size, room, way) {
  const body = {
    t: Number(process.hrtime.bigint() / 1000n),
    s: number,
    pad: "x".repeat(Math.max(0, size - AROUND)),
  };
  (way === "here" ? space.local : space).to(room).emit(NAME, body);
}

const orders = {
  async publish({ count, rate, size, room, way }) {
    stopped = false;
    const began = performance.now();
    let said = 0;
    while (said < count && !stopped) {
      say(said, size, room, way);
      said += 1;
      if (rate) await sleep(Math.max(0, began + (said * 1000) / rate - performance.now()));
      else await new Promise(setImmediate);
    }
    return { said, took_s: (performance.now() - began) / 1000 };
  },
  async stop() {
    stopped = true;
    return {};
  },
  async memory() {
    globalThis.gc();
    return {};
  },
  async await({ count }) {
    while (space.sockets.size !== count) await sleep(10);
    return {};
  },
  async watch() {
    delay.reset();
    delay.enable();
    return {};
  },
  async longest() {
    // A sample is the time between two looks, of which the first five milliseconds are as they should be.
    return { ms: Math.max(0, delay.max / 1e6 - WATCH_MS) };
  },
};

function tell(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { do: what, ...details } = JSON.parse(line);
    try {
      tell(await orders[what](details));
    } catch (error) {
      tell({ failure: `${what}: ${error}` });
    }
  })
  .on("close", () => process.exit(0));

http.listen(config.port, "127.0.0.1", () => tell({ port: config.port }));
