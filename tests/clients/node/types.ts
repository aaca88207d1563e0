// Compiled and never run: what an application writes against the package's types, and what they must refuse.

import { type OrchestratorEvent, OrchestratorClient } from "@erpmax/orchestrator-client";

const client = new OrchestratorClient("http://localhost", { tokens: { access: "…" } });

client.on("status:completed", (event) => {
  const address: string | null = event.data.erpnext_url;
  const seq: number = event.seq;
  // @ts-expect-error: only status:update tells a message.
  return void [address, seq, event.data.message];
});
client.on("job:log", (event) => void event.data);

export async function main(): Promise<void> {
  for await (const event of client.events()) amount(event);
}

function amount(event: OrchestratorEvent): number {
  if (event.name === "payment:received") return event.data.amount;
  // @ts-expect-error: other events tell no amount.
  return event.data.amount;
}
