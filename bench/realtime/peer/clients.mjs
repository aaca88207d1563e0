// Many of npm's own clients, which lose their connection and come back. Orders on standard input, one JSON object a
// line, each answered by one:
//
//   open      connect `count` clients, to the addresses in turn; tells whether the server gives them a way to recover
//   hear      wait until everybody has heard `count` events since they were opened
//   cut       close everybody's connection, for good
//   back      connect one client after the other again, to `url`, and tell how many milliseconds each took until it had
//             the `count` events it had missed
//   watch     count for everybody, from here on, the events that are missing between others or come twice; a client
//             that loses its server looks for another one
//   caught    wait until everybody is connected and has heard an event that was said after that, and after `since`
//             (microseconds, monotonic clock)
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const NAME = "bench";
const ABREAST = 100;
const GLANCE_MS = 10;
const PATIENCE_MS = 60_000;

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const clients = [];

class Client {
  constructor(number) {
    this.url = config.urls[number % config.urls.length];
    this.forget();
    this.heard = 0;
    this.socket = io(this.url + config.namespace, {
      forceNew: true,
      transports: ["websocket"],
      auth: { token: config.tokens[number % config.tokens.length], recovery: true },
    });
    this.socket.on(NAME, (body) => this.hear(body));
    this.socket.on("connect", () => {
      this.connectedAt = now();
    });
    this.socket.on("disconnect", () => this.turn());
    this.socket.io.on("reconnect_error", () => this.turn());
  }

  forget() {
    this.next = undefined;
    this.missing = 0;
    this.doubled = 0;
    this.newest = 0;
  }

  hear({ t, s }) {
    this.heard += 1;
    this.next ??= s;
    if (s < this.next) this.doubled += 1;
    else this.missing += s - this.next;
    this.next = Math.max(this.next, s + 1);
    this.newest = t;
  }

  // What was said before the client came back is its tail, and comes first.
  caughtUp(since) {
    return this.socket.connected && this.newest > Math.max(since, this.connectedAt);
  }

  turn() {
    // As a load balancer would lead it, past the instance that is gone.
    this.url = config.urls.find((other) => other !== this.url) ?? this.url;
    this.socket.io.uri = this.url;
  }

  async back(url, count) {
    this.forget();
    this.socket.io.uri = url;
    this.heard = 0;
    const began = performance.now();
    this.socket.connect();
    await until(() => this.heard >= count);
    return performance.now() - began;
  }
}

function now() {
  return Number(process.hrtime.bigint() / 1000n);
}

async function until(condition) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("waited in vain");
    await sleep(GLANCE_MS);
  }
}

function sum(field) {
  return clients.reduce((total, client) => total + client[field], 0);
}

const orders = {
  async open({ count }) {
    while (clients.length < count) {
      const batch = Array.from({ length: Math.min(ABREAST, count - clients.length) }, (_, place) => place);
      const first = clients.length;
      clients.push(...batch.map((place) => new Client(first + place)));
      await until(() => clients.every(({ socket }) => socket.connected));
    }
    return { recoverable: clients.every(({ socket }) => socket._pid !== undefined) };
  },
  async hear({ count }) {
    await until(() => clients.every(({ heard }) => heard >= count));
    return {};
  },
  async cut() {
    for (const { socket } of clients) {
      socket.io.reconnection(false);
      socket.io.engine.close();
    }
    await until(() => clients.every(({ socket }) => !socket.connected));
    return {};
  },
  async back({ url, count }) {
    const ms = [];
    for (const client of clients) ms.push(await client.back(url, count));
    const recovered = clients.filter(({ socket }) => socket.recovered).length;
    return { ms, recovered, missing: sum("missing"), doubled: sum("doubled") };
  },
  async watch() {
    for (const client of clients) client.forget();
    return {};
  },
  async caught({ since }) {
    await until(() => clients.every((client) => client.caughtUp(since)));
    return { took_s: (now() - since) / 1e6, missing: sum("missing"), doubled: sum("doubled") };
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { do: what, ...details } = JSON.parse(line);
    try {
      console.log(JSON.stringify(await orders[what](details)));
    } catch (error) {
      console.log(JSON.stringify({ failure: `${what}: ${error}` }));
    }
  })
  .on("close", () => process.exit(0));
console.log("{}");
