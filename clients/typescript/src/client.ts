// The client that an application uses.

import { type Socket, io } from "socket.io-client";

import {
  AccessRevoked,
  ConnectRefused,
  PositionLost,
  RequestRefused,
  SignInRefused,
  Unreachable,
  fieldsOf,
  retryAfterOf,
} from "./errors.js";
import {
  type AnyEvent,
  type EventMap,
  type OrchestratorEvent,
  type Position,
  type PositionStore,
  type Reset,
  parsePosition,
  readEvent,
  readPosition,
} from "./events.js";
import { Inbox, type Item } from "./inbox.js";
import { type SecondFactor, type TokenProvider, type Tokens, restTokens } from "./tokens.js";

/** Give one of `email` with `password`, `tokens`, or `tokenProvider`. Everything else has a default. */
export interface ClientOptions {
  email?: string;
  password?: string;
  /** Asked for a code whenever signing in by the password needs one; without it that is refused. */
  secondFactor?: SecondFactor;
  tokens?: Tokens;
  tokenProvider?: TokenProvider;
  /** Told each new pair of tokens, for applications that keep the refresh token. */
  onTokens?: (tokens: Tokens) => void;
  /** Default `/`, where every event is heard. */
  namespace?: string;
  /** Awaited when events were missed that cannot be told; without it that ends the client. */
  onReset?: (reset: Reset) => void | Promise<void>;
  /** Keeps the position, so that the next page or process goes on where the last one ended. */
  store?: PositionStore;
  /**
   * When more was missed than the server sends again, `sync` (the default) fetches all of it page by page, and `reset`
   * calls `onReset`.
   */
  catchUp?: "sync" | "reset";
  /**
   * How many events may wait for the application (10,000). At the bound the connection is closed, and opened again
   * once the application has caught up; nothing is lost by that.
   */
  maxWaiting?: number;
  /** How long `connect` tries before it gives up, in milliseconds (30,000). */
  connectTimeout?: number;
  /** Default `["websocket"]`. */
  transports?: ("websocket" | "polling")[];
}

type Handler<Event> = (event: Event) => void | Promise<void>;
type NamedEvent<Name extends keyof EventMap> = Extract<OrchestratorEvent, { name: Name }>;

const GREETING_MS = 20_000;
const ANSWER_MS = 10_000;
const PAGE = 500;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

/** Follows one namespace of one tenant and hands over each event once, in the order of their numbers. */
export class OrchestratorClient {
  /** What the application has dealt with. */
  position: Position | null = null;

  readonly #options: ClientOptions;
  readonly #provider: TokenProvider;
  readonly #socket: Socket;
  readonly #handlers = new Map<string, Handler<AnyEvent>[]>();
  readonly #control: Readonly<Record<string, (data: unknown) => void>> = {
    "connected": (data) => this.#connected(data),
    "rt:pos": (data) => this.#moved(data),
    "rt:reset": (data) => this.#reset(data),
    "auth:expiring": () => void this.#refresh(),
    "auth:expired": () => (this.#stale = this.#token),
    "auth:revoked": (data) => this.#revoked(data),
  };
  #inbox: Inbox;
  #item: Item | null = null;
  #token: string | null = null;
  #stale: string | null = null;
  #greeted = false;
  #over = false;
  #failures = 0;
  // Counts connections, so that what was begun for one does not act on the next.
  #link = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #settleFirst: { resolve: () => void; reject: (reason: unknown) => void } | null = null;

  constructor(url: string, options: ClientOptions) {
    const base = url.replace(/\/+$/, "");
    const { email, password, secondFactor, tokens, tokenProvider, namespace = "/" } = options;
    const credentials = email !== undefined && password !== undefined ? { email, password, secondFactor } : null;
    if (credentials === null && tokens === undefined && tokenProvider === undefined) {
      throw new TypeError("give email and password, tokens, or a tokenProvider");
    }
    this.#options = options;
    this.#provider = tokenProvider ?? restTokens(base, tokens ?? null, credentials, options.onTokens ?? (() => {}));
    this.#inbox = new Inbox(options.maxWaiting ?? 10_000, null);
    this.#socket = io(base + (namespace === "/" ? "" : namespace), {
      auth: (give) => void this.#authenticate(give),
      autoConnect: false,
      forceNew: true,
      transports: options.transports ?? ["websocket"],
      reconnectionDelay: FIRST_PAUSE_MS,
      reconnectionDelayMax: LONGEST_PAUSE_MS,
    });
    this.#socket.onAny((name: string, data: unknown) => this.#hear(name, data));
    this.#socket.on("connect_error", (error) => this.#refused(error));
    this.#socket.on("disconnect", (reason) => this.#dropped(reason));
  }

  // ----------------------------------------------------------------------------------------------- begin and end

  /** Signs in and connects; throws SignInRefused, ConnectRefused, AccessRevoked, or Unreachable after a while. */
  async connect(): Promise<void> {
    this.position = (await this.#options.store?.load()) ?? null;
    this.#inbox = new Inbox(this.#options.maxWaiting ?? 10_000, this.position);
    const patience = this.#options.connectTimeout ?? 30_000;
    const tooLate = setTimeout(() => this.#fail(new Unreachable(`not connected within ${patience} ms`)), patience);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#settleFirst = { resolve, reject };
        this.#socket.connect();
      });
    } finally {
      clearTimeout(tooLate);
    }
  }

  /** Disconnects; whoever iterates gets what has come in and then the end. */
  close(): void {
    this.#fail(null);
  }

  /** Whether the server has let us in and nobody has noticed a drop. */
  get connected(): boolean {
    return this.#greeted;
  }

  // ---------------------------------------------------------------------------------------------------- listening

  /**
   * Yields each event once, in order; asking for the next one says that the last was dealt with. `ephemeral` adds
   * those that the log does not hold. Throws AccessRevoked, SignInRefused, ConnectRefused or PositionLost when it is
   * over, and what `onReset` throws.
   */
  events(options?: { ephemeral?: false }): AsyncGenerator<OrchestratorEvent, void, undefined>;
  events(options: { ephemeral: boolean }): AsyncGenerator<AnyEvent, void, undefined>;
  async *events(options: { ephemeral?: boolean } = {}): AsyncGenerator<AnyEvent, void, undefined> {
    for (;;) {
      await this.settle();
      this.#item = await this.#inbox.next();
      if (this.#item === null) return;
      const event = this.#item.event;
      if (event !== undefined && (event.seq !== null || options.ephemeral === true)) yield event;
    }
  }

  /** Registers a handler of the events of this name, or with `*` of all, for `run`. */
  on<Name extends keyof EventMap>(name: Name, handler: Handler<NamedEvent<Name>>): this;
  on(name: string, handler: Handler<AnyEvent>): this;
  on(name: string, handler: Handler<never>): this {
    const known = this.#handlers.get(name) ?? [];
    this.#handlers.set(name, [...known, handler as Handler<AnyEvent>]);
    return this;
  }

  /** Calls the handlers with each event, one after the other, until it is over; throws what they throw. */
  async run(): Promise<void> {
    for await (const event of this.events({ ephemeral: true })) {
      const handlers = [...(this.#handlers.get(event.name) ?? []), ...(this.#handlers.get("*") ?? [])];
      for (const handler of handlers) await handler(event);
    }
  }

  /**
   * Notes that the event handed over last was dealt with, as asking for the next one does; for who stops asking. A
   * reset is dealt with here, and stays until that has worked.
   */
  async settle(): Promise<void> {
    const item = this.#item;
    if (item === null) return;
    if (item.reset !== undefined) {
      if (this.#options.onReset === undefined) throw new PositionLost(item.reset.reason);
      await this.#options.onReset(item.reset);
    }
    if (item.after !== null) {
      this.position = item.after;
      await this.#options.store?.save(item.after);
    }
    this.#item = null;
  }

  // ----------------------------------------------------------------------------------------------------- speaking

  /** Sends an event and returns its acknowledgement; throws RequestRefused, or Unreachable between connections. */
  async call(name: string, data?: unknown, timeout = ANSWER_MS): Promise<Readonly<Record<string, unknown>>> {
    if (!this.#greeted) throw new Unreachable("not connected at the moment");
    let answer: Readonly<Record<string, unknown>>;
    try {
      const sent = data === undefined ? [] : [data];
      answer = fieldsOf(await this.#socket.timeout(timeout).emitWithAck(name, ...sent));
    } catch (error) {
      throw new Unreachable(`${name} was not answered`, null, { cause: error });
    }
    if (answer["ok"] === true) return answer;
    const refusal = fieldsOf(answer["error"]);
    throw new RequestRefused(String(refusal["code"] ?? "UNEXPECTED_ANSWER"), String(refusal["message"] ?? ""), refusal);
  }

  /** Returns an access token for REST calls of your own; throws SignInRefused and Unreachable. */
  token(): Promise<string> {
    return this.#newToken(null);
  }

  async #newToken(stale: string | null): Promise<string> {
    const token = await this.#provider(stale);
    if (token === stale) throw new SignInRefused("TOKEN_EXPIRED", "the token provider has no newer access token");
    return token;
  }

  // ------------------------------------------------------------------------------------------- staying connected

  async #authenticate(give: (auth: object) => void): Promise<void> {
    const link = ++this.#link;
    try {
      const token = await this.#newToken(this.#stale);
      // Meanwhile the connection may have dropped and the next one asked too: only the newest is answered.
      if (link !== this.#link) return;
      this.#token = token;
      this.#timer = setTimeout(() => this.#retry(null), GREETING_MS);
      const known = this.#inbox.received;
      // The library adds the `pid` and an offset of its own; ours counts, because it says what was really taken.
      const position = known && { offset: `${known.epoch}.${known.seq}`, last_seq: known.seq, epoch: known.epoch };
      give({ token, recovery: true, ...position });
    } catch (error) {
      if (link !== this.#link) return;
      if (error instanceof Unreachable) this.#retry(error.retryAfter);
      else this.#fail(error);
    }
  }

  #refused(error: Error & { data?: unknown }): void {
    // What the library tries again by itself is a network that does not answer.
    if (this.#over || this.#socket.active) return;
    const details = fieldsOf(error.data);
    const [code, patience] = [details["code"], retryAfterOf(details)];
    if (code === "TOKEN_EXPIRED") this.#stale = this.#token;
    else if (code !== "UNAVAILABLE" && patience === null) {
      this.#fail(new ConnectRefused(String(code ?? "REFUSED"), error.message));
      return;
    }
    this.#retry(patience);
  }

  #dropped(reason: Socket.DisconnectReason): void {
    this.#hangUp();
    // Only after this one the library stays away by itself.
    if (reason === "io server disconnect" && !this.#over) this.#retry(null);
  }

  /** Leaves, and comes back after a while: not before `patience` seconds, if the server has named some. */
  #retry(patience: number | null): void {
    this.#hangUp();
    this.#socket.disconnect();
    const usual = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures, LONGEST_PAUSE_MS) * (0.5 + Math.random());
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#socket.connect(), (patience ?? 0) * 1000 + usual);
  }

  #hangUp(): void {
    this.#greeted = false;
    this.#link += 1;
    clearTimeout(this.#timer);
    this.#inbox.dropHeld();
  }

  #fail(reason: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#hangUp();
    this.#socket.disconnect();
    this.#inbox.end(reason);
    this.#settleFirst?.reject(reason ?? new Unreachable("closed before it was connected"));
  }

  // ------------------------------------------------------------------------------------------------ what is heard

  #hear(name: string, data: unknown): void {
    if (this.#over || !(this.#greeted || name === "connected")) return;
    const control = this.#control[name];
    if (control !== undefined) control(data);
    else if (!this.#inbox.heard(readEvent(name, data))) this.#overflow();
  }

  #connected(data: unknown): void {
    clearTimeout(this.#timer);
    this.#greeted = true;
    this.#failures = 0;
    const fields = fieldsOf(data);
    this.#inbox.connected(readPosition(fields["epoch"], fields["seq"]));
    this.#settleFirst?.resolve();
  }

  #moved(data: unknown): void {
    const position = parsePosition(data);
    if (position !== null) this.#inbox.moved(position);
  }

  #reset(data: unknown): void {
    const reset = resetOf(data);
    if (reset === null) {
      this.#retry(null);
      return;
    }
    const known = this.#inbox.received;
    const sameLog = known?.epoch === reset.position.epoch;
    if (reset.reason === "too_many" && sameLog && this.#options.catchUp !== "reset") {
      this.#inbox.hold();
      void this.#fetchMissed(reset.position.seq);
    } else {
      this.#inbox.reset(reset);
    }
  }

  #revoked(data: unknown): void {
    const fields = fieldsOf(data);
    this.#fail(new AccessRevoked(String(fields["code"] ?? "REVOKED"), String(fields["message"] ?? "")));
  }

  /** Closes the connection until the reader has caught up; the server then sends again from what was received. */
  #overflow(): void {
    this.#hangUp();
    this.#socket.disconnect();
    void this.#inbox.emptied().then(() => {
      if (!this.#over) this.#socket.connect();
    });
  }

  // --------------------------------------------------------------------------------------------------- what is done

  async #refresh(): Promise<void> {
    try {
      const token = await this.#newToken(this.#token);
      await this.call("auth:refresh", { token });
      this.#token = token;
    } catch {
      // The server closes the connection when the token expires, and the next one asks for a token again.
    }
  }

  /** Pages through what was missed up to `head`, where the live events begin. */
  async #fetchMissed(head: number): Promise<void> {
    const link = this.#link;
    try {
      for (let known = this.#inbox.received; known !== null && known.seq < head; known = this.#inbox.received) {
        await this.#inbox.emptied();
        const more = await this.#fetchPage(known, link);
        if (link !== this.#link) return;
        if (!more) break;
      }
      this.#inbox.release();
    } catch {
      if (link === this.#link) this.#retry(null);
    }
  }

  /** Fetches the next page and tells whether there may be more. */
  async #fetchPage(known: Position, link: number): Promise<boolean> {
    let page: Readonly<Record<string, unknown>>;
    try {
      page = await this.call("sync", { after_seq: known.seq, epoch: known.epoch, limit: PAGE });
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      const reset = error.code === "POSITION_LOST" ? resetOf(error.details) : null;
      if (reset === null && error.retryAfter === null) throw error;
      if (reset !== null && link === this.#link) this.#inbox.reset(reset);
      else await new Promise((done) => setTimeout(done, (error.retryAfter ?? 0) * 1000));
      return reset === null;
    }
    if (link !== this.#link) return false;
    const events = (page["events"] as { event: string; data: unknown }[]).map((each) => readEvent(each.event, each.data));
    this.#inbox.fetched(events, page["next_after_seq"] as number);
    return page["more"] === true;
  }
}

function resetOf(data: unknown): Reset | null {
  const fields = fieldsOf(data);
  const position = readPosition(fields["epoch"], fields["head"]);
  return position && { reason: String(fields["reason"] ?? ""), position };
}
