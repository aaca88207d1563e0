// The events that have come in and wait to be handed over: in order, each once, and not without bound.

import type { AnyEvent, OrchestratorEvent, Position, Reset } from "./events.js";

/** Something to hand over, if anything, and the position of whoever has dealt with it, if that has moved. */
export interface Item {
  readonly event?: AnyEvent;
  readonly reset?: Reset;
  readonly after: Position | null;
}

/** Takes events from connections that come and go, and gives them to one reader. */
export class Inbox {
  /** The position of what has come in; it is what the server is told when connecting again. */
  received: Position | null;
  readonly #limit: number;
  readonly #items: Item[] = [];
  #held: OrchestratorEvent[] | null = null;
  #over = false;
  #reason: unknown = null;
  #news: (() => void) | null = null;
  readonly #emptied: (() => void)[] = [];

  constructor(limit: number, received: Position | null) {
    this.#limit = limit;
    this.received = received;
  }

  // ---------------------------------------------------------------------------------------- from the connection

  /**
   * Takes the place where a connection begins; whoever has a position already keeps it. Should the two not fit,
   * `rt:reset` says so, and moving before it would hide that. A log that held nothing yet had no epoch, which is
   * learned afterwards.
   */
  connected(position: Position | null): void {
    if (position === null) return;
    if (this.received === null) this.#append({ after: position });
    else if (this.received.epoch === "") this.#append({ after: { epoch: position.epoch, seq: this.received.seq } });
  }

  /** Takes note that nothing up to `position` is for us. */
  moved(position: Position): void {
    const known = this.received;
    if (this.#held !== null || known === null || known.seq >= position.seq) return;
    if (known.epoch === "" || known.epoch === position.epoch) this.#append({ after: position });
  }

  /**
   * Takes an event; false if there is no room for more, and then the connection has to end. What is not newer than
   * the newest is dropped; so is what the log does not hold, when there is no room.
   */
  heard(event: AnyEvent): boolean {
    const room = this.#items.length + (this.#held?.length ?? 0) < this.#limit;
    if (event.seq === null) {
      if (room) this.#append({ event, after: null });
      return true;
    }
    if (!this.#isNew(event)) return true;
    if (!room) return false;
    if (this.#held !== null) this.#held.push(event);
    else this.#take(event);
    return true;
  }

  /** Goes on from the head that the server names, once the reader has reloaded its state. */
  reset(reset: Reset): void {
    this.#append({ reset, after: reset.position });
  }

  // ------------------------------------------------------------------------------ while missed events are paged

  /** Keeps what arrives live behind the missed events that are now fetched. */
  hold(): void {
    this.#held = [];
  }

  /** Takes one page of missed events, which says all that there is up to `afterSeq`. */
  fetched(events: readonly AnyEvent[], afterSeq: number): void {
    for (const event of events) {
      if (event.seq !== null && this.#isNew(event)) this.#take(event);
    }
    const known = this.received;
    if (known !== null && known.seq < afterSeq) this.#append({ after: { epoch: known.epoch, seq: afterSeq } });
  }

  /** Lets what arrived live meanwhile follow the missed events. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    this.fetched(held, 0);
  }

  /** Forgets what arrived live: the connection is over before the missed events were fetched. */
  dropHeld(): void {
    this.#held = null;
  }

  /** Waits until the reader has caught up. */
  emptied(): Promise<void> {
    return this.#items.length === 0 ? Promise.resolve() : new Promise((done) => this.#emptied.push(done));
  }

  // ----------------------------------------------------------------------------------------------- to the reader

  /** Hands over what is there and then ends, by throwing `reason` if there is one. */
  end(reason: unknown = null): void {
    if (this.#over) return;
    this.#over = true;
    this.#reason = reason;
    this.#news?.();
  }

  /** Waits for the next item; null at the end. Throws what `end` was given. */
  async next(): Promise<Item | null> {
    while (this.#items.length === 0) {
      if (this.#reason !== null) throw this.#reason;
      if (this.#over) return null;
      await new Promise<void>((done) => (this.#news = done));
    }
    const item = this.#items.shift() as Item;
    if (this.#items.length === 0) for (const done of this.#emptied.splice(0)) done();
    return item;
  }

  #isNew(event: OrchestratorEvent): boolean {
    return this.received === null || event.seq > this.received.seq;
  }

  #take(event: OrchestratorEvent): void {
    this.#append({ event, after: this.received && { epoch: this.received.epoch, seq: event.seq } });
  }

  #append(item: Item): void {
    this.#items.push(item);
    this.received = item.after ?? this.received;
    this.#news?.();
  }
}
