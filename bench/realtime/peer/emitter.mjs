// An outside program that speaks to Node's clients through Redis: on each line of standard input, `COUNT SIZE ROOM`, it
// says that many events as fast as it can.
import { createInterface } from "node:readline";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const NAME = "bench";
const AROUND = 65;
// How many messages may be on their way to Redis: enough to keep the connection busy.
const AHEAD = 1000;

const config = JSON.parse(process.env.EMITTER_CONFIG);
const redis = createClient({ url: config.redis });
await redis.connect();
// The emitter does not say when a message has gone out, so it is watched on its way.
const underway = [];
const watched = {
  publish(channel, message) {
    underway.push(redis.publish(channel, message));
  },
};
const space = new Emitter(watched).of(config.namespace);

async function publish(count, size, room) {
  const began = performance.now();
  for (let number = 0; number < count; number += 1) {
    const t = Number(process.hrtime.bigint() / 1000n);
    space.to(room).emit(NAME, { t, s: number, pad: "x".repeat(Math.max(0, size - AROUND)) });
    if (underway.length >= AHEAD) await Promise.all(underway.splice(0));
  }
  await Promise.all(underway.splice(0));
  return { said: count, took_s: (performance.now() - began) / 1000 };
}

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const [count, size, room] = line.split(" ");
    console.log(JSON.stringify(await publish(Number(count), Number(size), room)));
  })
  .on("close", () => process.exit(0));
console.log("{}");
