// What can end a client, or refuse one request of it.

/** Anything that this package throws; `code` is stable, the message is for people. */
export class OrchestratorError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/**
 * The password, the code or the refresh token is not accepted (any more): the user has to sign in anew. `code` is
 * 2FA_REQUIRED for a user with a second factor when there is nothing to ask for it.
 */
export class SignInRefused extends OrchestratorError {}

/** The server will not have this user on this namespace, and trying again would not change that. */
export class ConnectRefused extends OrchestratorError {}

/**
 * The right to listen has ended while connected; `code` says why: SESSION_REVOKED, API_KEY_REVOKED,
 * USER_INACTIVE, TENANT_ACCESS_REVOKED, TENANT_SUSPENDED or TENANT_DELETED.
 */
export class AccessRevoked extends OrchestratorError {}

/** Events were missed that the server cannot tell any more, and there is no `onReset` to reload the state. */
export class PositionLost extends OrchestratorError {
  readonly reason: string;

  constructor(reason: string) {
    super("POSITION_LOST", `the missed events cannot be told any more (${reason})`);
    this.reason = reason;
  }
}

/** The server acknowledged an event of ours with an error; `details` is the whole of it. */
export class RequestRefused extends OrchestratorError {
  readonly details: Readonly<Record<string, unknown>>;
  /** In seconds, if the server asks for patience. */
  readonly retryAfter: number | null;

  constructor(code: string, message: string, details: Readonly<Record<string, unknown>>) {
    super(code, message);
    this.details = details;
    this.retryAfter = retryAfterOf(details);
  }
}

/** The server cannot be reached, is not ready, or has not answered in time; the client itself tries again. */
export class Unreachable extends OrchestratorError {
  readonly retryAfter: number | null;

  constructor(message: string, retryAfter: number | null = null, options?: ErrorOptions) {
    super("UNREACHABLE", message, options);
    this.retryAfter = retryAfter;
  }
}

/** Reads how many seconds the server asks to wait, if it does. */
export function retryAfterOf(details: Readonly<Record<string, unknown>>): number | null {
  const value = details["retry_after"];
  return typeof value === "number" ? value : null;
}

/** Reads a JSON object off the wire; anything else counts as an empty one. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
