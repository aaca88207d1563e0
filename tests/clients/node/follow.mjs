// Runs one TypeScript client, told by lines of JSON on its standard input, and tells what happens in lines of JSON.
//
//   {do: "open", url, options, position?}   connects; says {at: "connected"} or {at: "failed", code}
//   {do: "read"}                            iterates; says {at: "event", name, seq, position} ..., {at: "ended", code}
//   {do: "handle", names}                   the same through handlers and `run`
//   {do: "call", name, data}                says {at: "answered", answer} or {at: "refused", code}
//   {do: "look"}                            says {at: "state", connected, position}

import { createInterface } from "node:readline";
import { OrchestratorClient } from "./dist/index.js";

const say = (line) => console.log(JSON.stringify(line));
let client;
let saved = null;

const deeds = {
  async open({ url, options, position }) {
    saved = position ?? null;
    const hooks = {
      onTokens: () => say({ at: "tokens" }),
      store: { load: () => saved, save: (place) => (saved = place) },
    };
    if (options.codes) hooks.secondFactor = async () => options.codes.pop();
    if (options.reloads) hooks.onReset = async (reset) => say({ at: "reset", ...reset });
    client = new OrchestratorClient(url, { ...options, ...hooks });
    await client.connect();
    say({ at: "connected" });
  },
  async read() {
    for await (const event of client.events({ ephemeral: true })) {
      say({ at: "event", name: event.name, seq: event.seq, id: event.data?.event_id ?? null, position: saved });
    }
    say({ at: "ended", code: null });
  },
  async handle({ names }) {
    for (const name of names) {
      client.on(name, async (event) => {
        say({ at: "begun", name, seq: event.seq });
        await null;
        say({ at: "done", name, seq: event.seq });
      });
    }
    await client.run();
  },
  async call({ name, data }) {
    try {
      say({ at: "answered", answer: await client.call(name, data) });
    } catch (error) {
      say({ at: "refused", code: error.code });
    }
  },
  async look() {
    say({ at: "state", connected: client.connected, position: saved });
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { do: deed, ...rest } = JSON.parse(line);
  deeds[deed](rest).catch((error) => say({ at: deed === "open" ? "failed" : "ended", code: error.code ?? String(error) }));
});
process.stdin.on("end", () => process.exit(0));
