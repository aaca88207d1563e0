// The peer: express with @node-rs/argon2, jsonwebtoken and node-postgres, and socket.io beside them. It has the same people with
// the same hashes, stores a session for each sign-in and exchanges each refresh token once. It keeps no audit, counts
// nobody, and knows neither tenants nor second factors.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { hash, verify } from "@node-rs/argon2";
import express from "express";
import jwt from "jsonwebtoken";
import pg from "pg";
import { Server } from "socket.io";

const ACCESS_S = 900;
const REFRESH_S = 604800;

const config = JSON.parse(process.env.PEER_CONFIG);
const database = new pg.Pool({ connectionString: config.database, max: 10 });
await database.query(`
  CREATE SCHEMA IF NOT EXISTS peer;
  CREATE TABLE IF NOT EXISTS peer.users AS SELECT id, lower(email) AS email, hashed_password FROM public.users;
  CREATE UNIQUE INDEX IF NOT EXISTS users_email ON peer.users (email);
  CREATE TABLE IF NOT EXISTS peer.sessions (
    id uuid PRIMARY KEY, user_id uuid NOT NULL, jti uuid NOT NULL, expires_at timestamptz NOT NULL
  );
`);
const decoy = await hash(randomUUID(), { memoryCost: 65536, timeCost: 3, parallelism: 4 });

function tokens(userId, sessionId, jti) {
  const sign = (claims, expiresIn) => jwt.sign({ sub: userId, sid: sessionId, ...claims }, config.secret, { expiresIn });
  return {
    access_token: sign({ type: "access" }, ACCESS_S),
    refresh_token: sign({ type: "refresh", jti }, REFRESH_S),
    token_type: "bearer",
  };
}

const app = express();
app.use(express.json());

app.post("/api/v1/auth/login", async (request, response) => {
  const { email, password } = request.body;
  const found = await database.query("SELECT id, hashed_password FROM peer.users WHERE email = lower($1)", [email]);
  const user = found.rows[0];
  const matches = await verify(user?.hashed_password ?? decoy, password);
  if (!user || !matches) return response.status(401).json({ error: "refused" });
  const [id, jti] = [randomUUID(), randomUUID()];
  await database.query(
    "INSERT INTO peer.sessions (id, user_id, jti, expires_at) VALUES ($1, $2, $3, now() + interval '7 days')",
    [id, user.id, jti],
  );
  response.json({ data: tokens(user.id, id, jti) });
});

app.post("/api/v1/auth/refresh", async (request, response) => {
  let claims;
  try {
    claims = jwt.verify(request.body.refresh_token, config.secret, { algorithms: ["HS256"] });
  } catch {
    return response.status(401).json({ error: "refused" });
  }
  const jti = randomUUID();
  const exchanged = await database.query(
    "UPDATE peer.sessions SET jti = $3, expires_at = now() + interval '7 days' " +
      "WHERE id = $1 AND jti = $2 AND expires_at > now() RETURNING user_id",
    [claims.sid, claims.jti, jti],
  );
  if (!exchanged.rowCount) return response.status(401).json({ error: "refused" });
  response.json({ data: tokens(claims.sub, claims.sid, jti) });
});

const http = createServer(app);
const io = new Server(http);
io.use((socket, next) => {
  jwt.verify(socket.handshake.auth.token, config.secret, { algorithms: ["HS256"] }, (error, claims) => {
    if (error || claims.type !== "access") return next(new Error("refused"));
    socket.data = { user: claims.sub };
    next();
  });
});
io.on("connection", (socket) => {
  socket.on("ping", (answer) => {
    socket.emit("pong");
    answer({ ok: true });
  });
});

createInterface({ input: process.stdin }).on("close", () => process.exit(0));
http.listen(config.port, "127.0.0.1", () => process.stdout.write(`${JSON.stringify({ port: config.port })}\n`));
