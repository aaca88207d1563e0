// Puts socket.io-client through its paces on every transport, and prints what it found as lines of JSON:
// {way, what, found}. Ends with an error when something does not come within its time.
//
// node clients.mjs http://127.0.0.1:8000

import { Manager } from "socket.io-client";

const url = process.argv[2];
const ways = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };
const once = (emitter, event) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event}`)), 8000);
    emitter.once(event, (...found) => (clearTimeout(timer), resolve(found)));
  });
const bytes = (value) => (value instanceof Uint8Array || value instanceof ArrayBuffer ? [...new Uint8Array(value)] : value);

async function play(way, transports) {
  const say = (what, ...found) => console.log(JSON.stringify({ way, what, found }));
  const manager = new Manager(url, { transports, forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 50 });
  const [main, custom] = [manager.socket("/", { auth: { token: "abc" } }), manager.socket("/custom")];
  // The greeting comes after the answer to CONNECT, so these listen in time.
  const greetings = Promise.all([once(main, "auth"), once(custom, "auth")]);
  await Promise.all([once(main, "connect"), once(custom, "connect")]);
  say("greetings", ...(await greetings).flat());
  if (way === "upgrade" && manager.engine.transport.name !== "websocket") await once(manager.engine, "upgrade");
  say("transport", manager.engine.transport.name);

  const echo = once(main, "message-back");
  main.emit("message", 1, Uint8Array.from([0, 255]), { deep: [Uint8Array.from([])] });
  const [number, binary, object] = await echo;
  say("echo", number, bytes(binary), bytes(object.deep[0]));
  say("ack", bytes(await custom.timeout(8000).emitWithAck("message-with-ack", Uint8Array.from([7]))));

  main.on("question", (what, answer) => answer("answer", what, Uint8Array.from([9])));
  say("asked", await main.timeout(8000).emitWithAck("ask me", "why"));

  const heard = [];
  custom.on("message-back", (found) => heard.push(found));
  for (let sent = 0; sent < 100; sent++) custom.emit("message", sent);
  while (heard.length < 100) await new Promise((resolve) => setTimeout(resolve, 10));
  say("order", heard.every((found, index) => found === index));

  const stranger = manager.socket("/random");
  stranger.connect();
  say("stranger", (await once(stranger, "connect_error"))[0].message);
  stranger.disconnect();

  const gone = once(custom, "disconnect");
  custom.emit("put me out");
  say("put out", (await gone)[0], main.connected);

  const id = main.id;
  const [lost, back] = [once(main, "disconnect"), once(main, "connect")];
  main.emit("drop me");
  const [reason] = await lost;
  await back;
  say("back", reason, main.id !== id, Boolean(main.recovered));
  const left = once(main, "disconnect");
  main.disconnect();
  say("left", (await left)[0]);
}

await Promise.all(Object.entries(ways).map(([way, transports]) => play(way, transports)));
process.exit(0);
