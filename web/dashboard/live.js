// The live half: one Socket.IO connection to the root namespace, where every event of the tenant and the user is heard.

import { io } from "../vendor/socket.io-client/socket.io.esm.min.js";
import { SessionOver, refresh, session } from "./api.js";

export const EVENTS = [
  "status:update",
  "status:completed",
  "status:failed",
  "subscription:updated",
  "subscription:expiring",
  "payment:received",
  "payment:failed",
  "invoice:issued",
  "order:paid",
  "notification:new",
];

const REFUSED_TOKEN = new Set(["AUTH_ERROR", "TOKEN_EXPIRED", "TOKEN_REVOKED"]);
const RETRY_S = 3;
const ACK_MS = 5000;

// Connect. The listener's `state` hears "live", "trying" or "off"; `event` hears each event once and in order, after a
// drop those that were missed first; `reload` is called when what was missed cannot be told; `log` and `online` hear
// what is told only at the moment; `over` ends the session, with the server's reason if it has given one.
export function connect(listener) {
  const socket = io({ auth: (give) => give({ token: session.access, recovery: true }) });
  for (const name of EVENTS) socket.on(name, (payload) => listener.event(name, payload));
  socket.on("job:log", listener.log);
  socket.on("presence:changed", listener.online);
  socket.on("rt:reset", listener.reload);
  socket.on("auth:changed", listener.reload);

  let closed = false;
  const over = (code) => closed || listener.over(code);

  async function ask(name, payload) {
    const answer = await socket.timeout(ACK_MS).emitWithAck(name, payload);
    if (!answer.ok) throw new Error(answer.error.message);
    return answer;
  }

  // The library comes back by itself when the line breaks, but not when the server has refused or ended the connection.
  let renewed = false;
  const later = (seconds) => setTimeout(() => closed || socket.connect(), seconds * 1000);
  const comeBackWithNewToken = async () => {
    // New tokens that are refused as well will not be accepted the third time.
    if (renewed) return over();
    renewed = true;
    try {
      await refresh();
      if (!closed) socket.connect();
    } catch (error) {
      renewed = false;
      if (error instanceof SessionOver) over();
      else later(RETRY_S);
    }
  };
  socket.on("connected", () => {
    renewed = false;
    listener.state("live");
    if (!socket.recovered) listener.reload();
    // Should this fail, the next change tells.
    ask("presence").then(listener.online, () => {});
  });
  socket.on("connect_error", (error) => {
    listener.state(navigator.onLine ? "trying" : "off");
    if (socket.active) return;
    if (REFUSED_TOKEN.has(error.data?.code)) comeBackWithNewToken();
    else later(error.data?.retry_after ?? RETRY_S);
  });
  socket.on("disconnect", (reason) => {
    if (reason === "io client disconnect") return;
    listener.state(navigator.onLine ? "trying" : "off");
    if (reason === "io server disconnect") comeBackWithNewToken();
  });
  socket.on("auth:expiring", async () => {
    try {
      await refresh();
      await ask("auth:refresh", { token: session.access });
    } catch (error) {
      // Whatever else went wrong, the server closes the connection in time, and the next one shows a new token.
      if (error instanceof SessionOver) over();
    }
  });
  socket.on("auth:revoked", ({ code }) => over(code));
  listener.state("trying");

  return {
    // Send an event and return what the server answers; throws with the server's words when it refuses.
    ask,
    close() {
      closed = true;
      socket.disconnect();
    },
  };
}
