// The peer: express and node-postgres. It checks the same signature over the same raw bytes, stores an event once, answers,
// and, where it `handles`, asks the provider about four events at a time and notes that each is done. It tries nothing
// again, limits nobody and has no log of events.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import express from "express";
import pg from "pg";

const AT_ONCE = 4;

const config = JSON.parse(process.env.PEER_CONFIG);
const database = new pg.Pool({ connectionString: config.database, max: 10 });
await database.query(`
  CREATE SCHEMA IF NOT EXISTS peer;
  CREATE TABLE IF NOT EXISTS peer.provider_events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), provider text NOT NULL, event_id text NOT NULL, type text NOT NULL,
    payload jsonb NOT NULL, received_at timestamptz NOT NULL DEFAULT now(), handled_at timestamptz,
    UNIQUE (provider, event_id)
  );
`);

const waiting = [];
let busy = 0;

async function handle({ id, invoice }) {
  busy += 1;
  try {
    const found = await fetch(`${config.provider}/api/v1/stores/${config.store}/invoices/${invoice}`);
    await found.json();
    await database.query("UPDATE peer.provider_events SET handled_at = now() WHERE id = $1", [id]);
  } finally {
    busy -= 1;
    begin();
  }
}

function begin() {
  while (busy < AT_ONCE && waiting.length) handle(waiting.shift());
}

function signed(body, header) {
  const expected = Buffer.from(`sha256=${createHmac("sha256", config.secret).update(body).digest("hex")}`);
  const given = Buffer.from(header ?? "");
  return expected.length === given.length && timingSafeEqual(expected, given);
}

const app = express();
app.post("/api/v1/billing/webhook/btcpay", express.raw({ type: "*/*", limit: "512kb" }), async (request, response) => {
  if (!signed(request.body, request.get("BTCPay-Sig"))) {
    return response.status(400).json({ status: "error", message: "Invalid signature" });
  }
  const event = JSON.parse(request.body);
  const { rows } = await database.query(
    `INSERT INTO peer.provider_events (provider, event_id, type, payload) VALUES ('btcpay', $1, $2, $3)
     ON CONFLICT DO NOTHING RETURNING id`,
    [event.originalDeliveryId, event.type, event],
  );
  response.json({ status: "success", message: "Webhook received" });
  if (config.handles && rows.length) {
    waiting.push({ id: rows[0].id, invoice: event.invoiceId });
    begin();
  }
});

createInterface({ input: process.stdin }).on("close", () => process.exit(0));
createServer(app).listen(config.port, "127.0.0.1", () => console.log(JSON.stringify({ port: config.port })));
