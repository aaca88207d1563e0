// Access tokens: where they come from, and how a new one is had when the old one is too old.

import { SignInRefused, Unreachable, fieldsOf } from "./errors.js";

/**
 * Returns an access token other than the given one, which the server has found too old; any will do when it is null.
 * Throws SignInRefused when there will be none, and Unreachable when there may be one later.
 */
export type TokenProvider = (stale: string | null) => Promise<string>;

/** What `POST /api/v1/auth/login` and `/refresh` give; a refresh token works once. */
export interface Tokens {
  readonly access: string;
  readonly refresh?: string;
}

/** Returns a code of the user's authenticator app, or a recovery code; called for each sign-in that asks for one. */
export type SecondFactor = () => Promise<string>;

export interface Credentials {
  readonly email: string;
  readonly password: string;
  readonly secondFactor?: SecondFactor | undefined;
}

const TIMEOUT_MS = 15_000;

/**
 * Returns a provider that signs in and refreshes over REST, once for however many ask at the same time. `onTokens` is
 * told each new pair, for applications that keep it: of the refresh tokens only the newest works.
 */
export function restTokens(
  url: string,
  first: Tokens | null,
  credentials: Credentials | null,
  onTokens: (tokens: Tokens) => void,
): TokenProvider {
  let tokens = first;
  let renewal: Promise<Tokens> | null = null;

  async function obtain(): Promise<Tokens> {
    if (tokens?.refresh !== undefined) {
      try {
        return readTokens("refresh", await ask(url, "refresh", { refresh_token: tokens.refresh }));
      } catch (error) {
        if (!(error instanceof SignInRefused) || credentials === null) throw error;
      }
    }
    if (credentials === null) {
      throw new SignInRefused("TOKEN_EXPIRED", "the access token is too old, and there is no refresh token");
    }
    return await signIn(url, credentials);
  }

  async function renew(): Promise<Tokens> {
    try {
      tokens = await obtain();
      onTokens(tokens);
      return tokens;
    } finally {
      renewal = null;
    }
  }

  return async (stale) => {
    if (tokens !== null && tokens.access !== stale) return tokens.access;
    renewal ??= renew();
    return (await renewal).access;
  };
}

async function signIn(url: string, { email, password, secondFactor }: Credentials): Promise<Tokens> {
  const data = await ask(url, "login", { email, password });
  if (data["status"] !== "2fa_required") return readTokens("login", data);
  if (secondFactor === undefined) {
    throw new SignInRefused("2FA_REQUIRED", "the user has a second factor, and there is no `secondFactor`");
  }
  const answer = { challenge_token: String(data["challenge_token"]), code: await secondFactor() };
  return readTokens("verify-2fa", await ask(url, "verify-2fa", answer));
}

type Fields = ReturnType<typeof fieldsOf>;

async function ask(url: string, path: string, body: Record<string, string>): Promise<Fields> {
  let answer: Response;
  let document: unknown;
  try {
    answer = await fetch(`${url}/api/v1/auth/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    document = await answer.json().catch(() => null);
  } catch (error) {
    throw new Unreachable(`${path}: ${String(error)}`, null, { cause: error });
  }
  if (answer.status >= 500 || answer.status === 429) {
    const patience = Number(answer.headers.get("Retry-After") ?? Number.NaN);
    throw new Unreachable(`${path} answered ${answer.status}`, Number.isFinite(patience) ? patience : null);
  }
  const fields = fieldsOf(document);
  if (!answer.ok) {
    const code = fieldsOf(fields["error"])["code"] ?? "AUTH_ERROR";
    throw new SignInRefused(String(code), String(fields["message"] ?? "sign-in refused"));
  }
  return fieldsOf(fields["data"]);
}

function readTokens(path: string, data: Fields): Tokens {
  const { access_token: access, refresh_token: refresh } = data;
  if (typeof access !== "string" || typeof refresh !== "string") {
    // A sign-in that asks for what this package does not know ends here too.
    throw new SignInRefused("UNEXPECTED_ANSWER", `${path} gave no tokens`);
  }
  return { access, refresh };
}
