// The peer: Node's socket.io with the same namespace, room and commands as engine_server.py.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http);
const space = io.of("/bench");
const filler = "x".repeat(200);
space.on("connection", (socket) => socket.join("room"));

function flood(count) {
  let number = 0;
  const next = () => {
    space.to("room").emit("event", { t: Number(process.hrtime.bigint() / 1000n), s: number, p: filler });
    number += 1;
    if (number < count) setImmediate(next);
  };
  next();
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const [command, count] = line.split(" ");
  if (command === "flood") return flood(Number(count));
  const used = process.cpuUsage();
  console.log(JSON.stringify({ cpu_s: (used.user + used.system) / 1e6, rss: process.memoryUsage().rss }));
}).on("close", () => process.exit(0));

http.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
