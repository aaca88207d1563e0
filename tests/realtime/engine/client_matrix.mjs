// What socket.io-client is put through beyond `clients.mjs`, on every transport: words said during the upgrade, many
// heartbeats, large bytes, a refusal with its reasons, and an outage of the server. Prints {way, what, found} as JSON.
//
// node client_matrix.mjs http://127.0.0.1:8000

import { Manager } from "socket.io-client";

const url = process.argv[2];
const ways = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...found) => resolve(found)));
const until = async (true_) => {
  while (!true_()) await pause(2);
};
const large = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, place) => place % 251));

async function play(way, transports) {
  const say = (what, ...found) => console.log(JSON.stringify({ way, what, found }));
  const manager = new Manager(url, { transports, forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 50 });
  const main = manager.socket("/", { auth: { token: way } });
  await once(main, "connect");

  const heard = [];
  main.on("message-back", (found) => heard.push(found));
  const last = transports.at(-1);
  let said = 0;
  for (let more = 50; more > 0; more -= manager.engine.transport.name === last) {
    main.emit("message", said++);
    await pause(1);
  }
  await until(() => heard.length === said);
  say("order", heard.every((found, place) => found === place), manager.engine.transport.name);

  let pings = 0;
  manager.on("ping", () => pings++);
  await until(() => pings === 3);
  say("heartbeats", main.connected);

  const back = await main.emitWithAck("message-with-ack", { deep: [large] });
  main.on("question", (given, answer) => answer(given));
  say("large bytes", large.equals(back.deep[0]), await main.emitWithAck("ask me"));

  const closed = manager.socket("/closed", { auth: { token: way } });
  closed.connect();
  const [error] = await once(closed, "connect_error");
  say("refused", error.message, error.data, closed.active, main.connected);

  const [id, lost, found] = [main.id, once(main, "disconnect"), once(main, "connect")];
  main.emit("outage");
  await lost;
  const late = main.emitWithAck("message-with-ack", "said while away");
  await found;
  say("outage", main.id !== id, await late);
  main.disconnect();
}

for (const [way, transports] of Object.entries(ways)) await play(way, transports);
process.exit(0);
