// What a client hears, and where it stands in the log.

/** In every payload of the log. */
export interface Logged {
  tenant_id: string;
  /** A UUID, the same in all namespaces. */
  event_id: string;
  /** The event's number in the tenant's stream; not each of them is for you. */
  seq: number;
}

interface JobEvent extends Logged {
  job_id: string;
  job_type: string;
  status: string;
  state: string;
}

/** The names of the log's events with their payloads. Times are RFC 3339 in UTC. Newer servers may say more. */
export interface EventMap {
  "status:update": JobEvent & { progress: number; message: string | null };
  "status:completed": JobEvent & { progress: number; erpnext_url: string | null; result: Record<string, unknown> };
  "status:failed": JobEvent & { error: string };
  "subscription:updated": Logged & {
    subscription_id: string;
    status: string;
    plan: string;
    updated_at: string;
    subscription: Record<string, unknown>;
    entitlements?: Record<string, unknown> | null;
  };
  "subscription:expiring": Logged & { subscription_id: string; days_left: number; ends_at: string };
  "payment:received": Logged & {
    payment_id: string;
    amount: number;
    currency: string;
    status: string;
    created_at: string;
  };
  "payment:failed": Logged & {
    payment_id: string;
    amount: number;
    currency: string;
    status: string;
    invoice_url: string | null;
    created_at: string;
  };
  "invoice:issued": Logged & {
    document_id: string;
    number: string;
    kind: string;
    payment_id: string;
    amount: number;
    currency: string;
    issued_at: string;
  };
  /** `order` is what the order's own address would answer, amounts as texts. */
  "order:updated": Logged & { order_id: string; status: string; order: Record<string, unknown> };
  "order:paid": Logged & {
    order_id: string;
    amount: string;
    currency: string;
    external_reference: string | null;
    paid_at: string;
  };
  "notification:new": Logged & {
    user_id: string;
    id: string;
    type: string;
    title: string;
    message: string;
    data: Record<string, unknown>;
    link: string | null;
    read: boolean;
    created_at: string;
  };
}

/** An event of the log. Test `name` and TypeScript knows `data`; let unknown names pass, new ones may be added. */
export type OrchestratorEvent = {
  [Name in keyof EventMap]: {
    readonly name: Name;
    readonly data: EventMap[Name];
    readonly seq: number;
    readonly eventId: string;
  };
}[keyof EventMap];

/** What the log does not hold: presence, lines of a job's output, and what other programs send. */
export interface EphemeralEvent {
  readonly name: string;
  readonly data: unknown;
  readonly seq: null;
  readonly eventId: null;
}

export type AnyEvent = OrchestratorEvent | EphemeralEvent;

/**
 * A place in the log of a tenant: `seq` is the newest number that has been dealt with. Numbers count within an
 * `epoch`; a log that was restored from a backup begins a new one.
 */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

/**
 * Where an application keeps its position, so that the next page or process goes on where the last one ended. Keep
 * one for each server, user, tenant and namespace that you follow.
 */
export interface PositionStore {
  /** Returns what was saved last, or null: then the client begins at the present. */
  load(): Position | null | Promise<Position | null>;
  /** Called after each event that the application has dealt with. */
  save(position: Position): void | Promise<void>;
}

/**
 * Events were missed that cannot be told: reload the state over REST; the next event comes after `position`.
 *
 * `reason`: `epoch` (the log was restored, numbers began anew), `pruned` (older than the server keeps), `future` (a
 * position that the log has not reached), `too_many` (more than it sends again), `invalid` (not a position).
 */
export interface Reset {
  readonly reason: string;
  readonly position: Position;
}

/** Makes an event of the name and the payload on the wire. */
export function readEvent(name: string, data: unknown): AnyEvent {
  const { seq, event_id: eventId } = (data ?? {}) as Partial<Logged>;
  if (typeof seq === "number" && typeof eventId === "string") {
    // The catalogue above describes what the server sends; it is not checked field by field.
    return { name, data, seq, eventId } as OrchestratorEvent;
  }
  return { name, data, seq: null, eventId: null };
}

/** Makes a position of what the wire says, null where it says none. */
export function readPosition(epoch: unknown, seq: unknown): Position | null {
  return typeof epoch === "string" && typeof seq === "number" ? { epoch, seq } : null;
}

/** Reads `<epoch>.<seq>`, the form in which `rt:pos` tells a position. */
export function parsePosition(text: unknown): Position | null {
  const match = typeof text === "string" ? /^(.+)\.(\d+)$/.exec(text) : null;
  return match ? readPosition(match[1], Number(match[2])) : null;
}
