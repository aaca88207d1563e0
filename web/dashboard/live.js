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
  "notification:new",
];

const REFUSED_TOKEN = new Set(["AUTH_ERROR", "TOKEN_EXPIRED", "TOKEN_REVOKED"]);
const REMEMBERED = 500;
const RETRY_MS = 3000;
const ACK_MS = 5000;

// Connect. The listener's `state` hears "live", "trying" or "off"; `joined` is called after each connection, when what
// happened meanwhile must be read again; `event` hears each event once, by its event_id; `over` ends the session.
export function connect(listener) {
  const socket = io({ auth: (give) => give({ token: session.access }) });
  const heard = new Set();

  const tell = (name) => (payload) => {
    if (heard.has(payload.event_id)) return;
    heard.add(payload.event_id);
    if (heard.size > REMEMBERED) heard.delete(heard.values().next().value);
    listener.event(name, payload);
  };
  for (const name of EVENTS) socket.on(name, tell(name));

  // The library comes back by itself when the line breaks, but not when the server has refused or ended the connection.
  let closed = false;
  let renewed = false;
  const later = () => setTimeout(() => closed || socket.connect(), RETRY_MS);
  const comeBackWithNewToken = async () => {
    // New tokens that are refused as well will not be accepted the third time.
    if (renewed) return listener.over();
    renewed = true;
    try {
      await refresh();
      if (!closed) socket.connect();
    } catch (error) {
      renewed = false;
      if (error instanceof SessionOver) listener.over();
      else later();
    }
  };
  socket.on("connected", () => {
    renewed = false;
    listener.state("live");
    listener.joined();
  });
  socket.on("connect_error", (error) => {
    listener.state(navigator.onLine ? "trying" : "off");
    if (socket.active) return;
    if (REFUSED_TOKEN.has(error.data?.code)) comeBackWithNewToken();
    else later();
  });
  socket.on("disconnect", (reason) => {
    if (reason === "io client disconnect") return;
    listener.state(navigator.onLine ? "trying" : "off");
    if (reason === "io server disconnect") comeBackWithNewToken();
  });
  listener.state("trying");

  return {
    // Send an event and wait until the server has acknowledged it; throws with the server's words when it refuses.
    async tell(name, payload) {
      const answer = await socket.timeout(ACK_MS).emitWithAck(name, payload);
      if (!answer.ok) throw new Error(answer.error.message);
    },
    // Connect anew, as the session that is now kept.
    again() {
      listener.state("trying");
      socket.disconnect().connect();
    },
    close() {
      closed = true;
      socket.disconnect();
    },
  };
}
