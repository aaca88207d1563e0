// Holds sockets of npm's socket.io-client, as its bundle for browsers comes, and writes down what happens to them for the
// test that drives this page. What is binary goes to the test, and comes from it, as {bytes: [...]}.

const sockets = new Map();
const ACK_MS = 5000;

const mapped = (value, each) => {
  if (Array.isArray(value)) return value.map(each);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, each(inner)]));
};
const told = (value) => (value instanceof ArrayBuffer ? { bytes: [...new Uint8Array(value)] } : mapped(value, told));
const taken = (value) => (Array.isArray(value?.bytes) ? Uint8Array.from(value.bytes) : mapped(value, taken));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function post(url, body, token) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).data;
}

window.matrix = {
  open(name, url, options) {
    const log = [];
    const socket = io(url, { reconnectionDelay: 20, reconnectionDelayMax: 50, ...options });
    sockets.set(name, { socket, log });
    socket.io.on("open", () => {
      const { engine } = socket.io;
      log.push(["transport", engine.transport.name]);
      engine.on("upgrade", (transport) => log.push(["transport", transport.name]));
    });
    socket.on("connect", () => log.push(["connect", socket.id, Boolean(socket.recovered)]));
    socket.on("disconnect", (reason) => log.push(["disconnect", reason]));
    socket.on("connect_error", (error) => log.push(["refused", error.message, error.data ?? null]));
    socket.onAny((event, ...args) => {
      // A question is answered with what was asked.
      const answer = typeof args.at(-1) === "function" ? args.pop() : () => {};
      log.push(["event", event, ...told(args)]);
      answer("answer", ...args);
    });
  },
  log: (name) => sockets.get(name).log,
  send: (name, event, ...args) => void sockets.get(name).socket.emit(event, ...taken(args)),
  ask: (name, event, ...args) =>
    new Promise((resolve, reject) => {
      const { socket } = sockets.get(name);
      const settle = (error, ...answer) => (error ? reject(error) : resolve(told(answer)));
      socket.timeout(ACK_MS).emit(event, ...taken(args), settle);
    }),
  // Connect, and say numbers from 0 on until the connection has been upgraded, and some more; returns how many.
  async count(name, event) {
    const { socket } = sockets.get(name);
    socket.connect();
    await new Promise((resolve) => socket.once("connect", resolve));
    let said = 0;
    for (let more = 20; more > 0; more -= socket.io.engine.transport.name === "websocket") {
      socket.emit(event, said++);
      await pause(1);
    }
    return said;
  },
  // Show something else at the next connection.
  show: (name, auth) => void Object.assign(sockets.get(name).socket.auth, auth),
  close() {
    for (const { socket } of sockets.values()) socket.disconnect();
    sockets.clear();
  },
  post,
};
