// The REST client: tokens in sessionStorage, one refresh at a time when they have run out, errors with the server's text.

const BASE = "/api/v1/";
const KEPT = { access: "access_token", refresh: "refresh_token" };

export class ApiError extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// The server does not accept our tokens and has no new ones for us.
export class SessionOver extends Error {}

export const session = {
  get access() {
    return sessionStorage.getItem(KEPT.access) ?? "";
  },
  get open() {
    return this.access !== "";
  },
  keep({ access_token: access, refresh_token: refresh }) {
    sessionStorage.setItem(KEPT.access, access);
    sessionStorage.setItem(KEPT.refresh, refresh);
  },
  drop() {
    for (const name of Object.values(KEPT)) sessionStorage.removeItem(name);
  },
};

async function send(method, path, body, token) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(BASE + path, { method, headers, body: JSON.stringify(body) });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const fields = (content.errors ?? []).map((problem) => `${problem.field.replace("body -> ", "")}: ${problem.message}`);
  const text = fields.join("; ") || content.message || `HTTP ${answer.status}`;
  throw new ApiError(answer.status, text, content.error?.code);
}

let refreshing = null;

// Get new tokens. Whoever asks while this is under way waits for the same answer: a refresh token works only once.
export function refresh() {
  refreshing ??= renew().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function renew() {
  const token = sessionStorage.getItem(KEPT.refresh);
  if (!token) throw new SessionOver();
  try {
    const { data } = await send("POST", "auth/refresh", { refresh_token: token });
    // Meanwhile whoever it was may have signed out, or switched to another tenant.
    if (sessionStorage.getItem(KEPT.refresh) === token) session.keep(data);
  } catch (error) {
    if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw new SessionOver();
    throw error;
  }
}

// Call the API as whoever is signed in, and return the whole body.
export async function call(method, path, body) {
  const token = session.access;
  try {
    return await send(method, path, body, token);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401 || !token) throw error;
  }
  // Somebody else may have refreshed while our request was under way.
  if (session.access === token) await refresh();
  return send(method, path, body, session.access);
}

// Sign in or register: the answer's tokens become the session. Returns whether there were any: a letter may come first.
export async function open(path, form) {
  const { data } = await send("POST", path, form);
  if (data) session.keep(data);
  return Boolean(data);
}
