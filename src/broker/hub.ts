/**
 * The hub: the only place where waiting workers meet ready jobs.
 *
 * 1. A consumer joins the lines of its queues. Each line is in one state (line.ts), and at most one reserve call per
 *    queue is in flight.
 * 2. To serve a line is to ask Redis once for all of its consumers that can take jobs, first come, first served, and
 *    to go on for as long as there are both jobs and takers. A consumer that got jobs goes to the end of its lines.
 * 3. When a queue is found empty, its line listens: to the doorbell, to the time when the next job is due, and, should
 *    a bell get lost, to the fallback's timer, whichever comes first.
 * 4. When nobody can take more, the line rests until a consumer says that it can.
 * 5. A consumer with several queues takes from a lower one only while the higher ones are empty (strict), or from each
 *    as far as its weight goes (weighted).
 * 6. A bell that rings while it is still to be answered whether somebody here can take jobs of its queue is held until
 *    then. Passed on at once it would come back when the line listens again: with 50 queues on a stream, most of the
 *    time while yet another one was being looked into. So 80 bells went round for ever, and 8,000 jobs cost 26,000 calls.
 * 7. Fresh jobs that come while workers wait at their empty queue are handed over (hand-overs.ts).
 * 8. A call that fails is repeated until it is answered, since it may have reserved jobs: what then comes for
 *    consumers that have gone is given back at once.
 */
import type { Lease, LeasedJob, NewJob, PutOutcome } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { Claim, Reservation } from "../store/store.ts";
import type { Consumer } from "./consumer.ts";
import { HandOvers, type HandOversOptions } from "./hand-overs.ts";
import type { Line, LineState, ReserveCall, Waiter } from "./line.ts";
import { Weights } from "./weights.ts";

/** What the hub needs of the store and its doorbell. */
export type HubOptions = HandOversOptions & {
  readonly put: (queue: string, jobs: readonly NewJob[]) => Promise<PutOutcome[]>;
  /** Something in this queue is due, or a lease of it ends, so soon. */
  readonly onNextDue: (queue: string, inMs: number) => void;
  /** Ends reservations whose jobs no worker has seen. */
  readonly giveBack: (leases: readonly Lease[]) => void;
  readonly doorbell: { listen(queue: string): void; ignore(queue: string): void };
  readonly ring: (queue: string) => Promise<void>;
  /** The longest that a job can wait for a worker when its bell gets lost. */
  readonly fallbackMs: number;
  readonly log: Logger;
};

/** Jobs asked for in one call: about 10 ms of Redis. */
const MAX_CLAIMED = 1_000;
const RETRY_MS = 250;
/**
 * For so many waiters is asked when a queue has been empty, and for so many times more each time that there was more.
 * With 10,000 streams at one queue, asking for 1,000 of them for each job cost Redis 0.87 ms a job instead of 0.11, and
 * the broker 1.1 ms instead of 0.2.
 */
const FIRST_WINDOW = 16;
const WINDOW_GROWTH = 4;

export class Hub {
  readonly #options: HubOptions;
  readonly #handOvers: HandOvers;
  readonly #lines = new Map<string, Line>();
  readonly #waiters = new Map<Consumer, Waiter>();
  readonly #serving = new Set<Promise<void>>();
  /** Resting lines whose bell's token was taken, and neither used nor passed on yet. */
  readonly #heldBells = new Set<Line>();
  #nextCall = 1;
  #stopped = false;

  constructor(options: HubOptions) {
    this.#options = options;
    this.#handOvers = new HandOvers(options, {
      handOut: (line, call, reservation) => this.#takeAnswer(line, call, reservation),
      takeBack: (call) => this.#takeBack(call),
      warn: (line, what, error) => this.#warn(line, what, error),
      onSettled: (line) => this.#onHandOverSettled(line),
    });
  }

  /** Looks into all its queues for this consumer at once, and hands it jobs until it leaves. */
  join(consumer: Consumer): void {
    const weights = consumer.policy === "weighted" ? new Weights(consumer.queues) : undefined;
    const waiter: Waiter = { consumer, weights, pending: 0 };
    this.#waiters.set(consumer, waiter);
    const lines = consumer.queues.map(({ name }) => this.#lineOf(name));
    for (const line of lines) {
      line.waiters.add(waiter);
      if (consumer.queues.length > 1) line.rovers.add(waiter);
      if (consumer.asksItself) line.askers.add(waiter);
    }
    for (const line of lines) void this.#look(line);
  }

  /** From now on it gets nothing; what is on its way to it is given back. */
  leave(consumer: Consumer): void {
    const waiter = this.#waiters.get(consumer);
    if (!waiter) return;
    this.#waiters.delete(consumer);
    for (const { name } of consumer.queues) {
      const line = this.#lines.get(name);
      if (!line) continue;
      line.waiters.delete(waiter);
      line.busy.delete(waiter);
      line.rovers.delete(waiter);
      line.askers.delete(waiter);
      if (isEmpty(line)) this.#drop(line);
      else this.#settleBell(line);
    }
  }

  /** Puts jobs, and hands them over where somebody waits for them. */
  async put(queue: string, jobs: readonly NewJob[]): Promise<PutOutcome[]> {
    const line = this.#lines.get(queue);
    const isPossible = line !== undefined && !this.#stopped && this.#handOvers.isPossible(line, jobs);
    const call = isPossible ? this.#compose(line, jobs.length) : undefined;
    if (!line || !call) return await this.#options.put(queue, jobs);
    if (call.claims.some(({ bytes, availableByMs }) => bytes !== undefined || availableByMs !== undefined)) {
      this.#takeBack(call);
      return await this.#options.put(queue, jobs);
    }
    return (await this.#handOvers.begin(line, call, jobs)) ?? (await this.#options.put(queue, jobs));
  }

  /** This consumer can take more than before: to be called whenever its capacity() was 0, and is no longer. */
  wake(consumer: Consumer): void {
    const waiter = this.#waiters.get(consumer);
    for (const { name } of consumer.queues) {
      const line = this.#lines.get(name);
      if (waiter && line?.busy.delete(waiter)) line.waiters.add(waiter);
      if (line?.state.kind === "resting") void this.#serve(line);
    }
  }

  /** Somebody rang at this queue. Settles when its jobs, if there are any, have been handed out. */
  async onRing(queue: string): Promise<void> {
    const line = this.#lines.get(queue);
    if (!line) {
      await this.#passOn(queue);
    } else if (line.state.kind === "listening" && !this.#wanted(line)) {
      this.#setState(line, { kind: "resting" });
      if (this.#isUndecided(line)) this.#heldBells.add(line);
      else await this.#passOn(queue);
    } else {
      await this.#look(line);
    }
  }

  /** No more reservations; settles when the last call in flight is answered. Safe to call twice. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const line of this.#lines.values()) {
      if (line.state.kind !== "serving") this.#setState(line, { kind: "resting" });
    }
    await Promise.all([...this.#serving, this.#handOvers.stop()]);
    const held = [...this.#heldBells];
    this.#heldBells.clear();
    await Promise.all(held.map(({ queue }) => this.#passOn(queue)));
  }

  #lineOf(queue: string): Line {
    let line = this.#lines.get(queue);
    if (!line) {
      line = {
        queue,
        waiters: new Set(),
        busy: new Set(),
        rovers: new Set(),
        askers: new Set(),
        window: FIRST_WINDOW,
        state: { kind: "resting" },
        lookAgain: false,
        handOvers: new Set(),
        unanswered: undefined,
        failed: false,
      };
      this.#lines.set(queue, line);
    }
    return line;
  }

  /** The one function that changes a line's state. */
  #setState(line: Line, state: LineState): void {
    if ("timer" in line.state) clearTimeout(line.state.timer);
    if (line.state.kind === "listening") this.#options.doorbell.ignore(line.queue);
    line.state = state;
    if (state.kind === "listening") this.#options.doorbell.listen(line.queue);
  }

  /** A line that nobody stands in is forgotten, unless a call is still to be answered. */
  #drop(line: Line): void {
    if (line.state.kind === "serving" || line.unanswered || line.handOvers.size > 0) return;
    this.#setState(line, { kind: "resting" });
    this.#lines.delete(line.queue);
    if (this.#heldBells.delete(line)) void this.#passOn(line.queue);
  }

  async #look(line: Line): Promise<void> {
    if (line.state.kind === "serving" || line.state.kind === "failing") {
      line.lookAgain = true;
      return;
    }
    await this.#serve(line);
  }

  #serve(line: Line): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.#setState(line, { kind: "serving" });
    const served = this.#serveUntilEmpty(line)
      .catch((error: unknown) => this.#retryLater(line, error))
      .finally(() => this.#serving.delete(served));
    this.#serving.add(served);
    return served;
  }

  async #serveUntilEmpty(line: Line): Promise<void> {
    for (;;) {
      line.lookAgain = false;
      const call = line.unanswered ?? (this.#stopped ? undefined : this.#compose(line));
      if (!call) break;
      line.unanswered = call;
      // From here on, the script rings where it leaves jobs.
      this.#heldBells.delete(line);
      const { reserve, brokerId } = this.#options;
      const reservation = await reserve(line.queue, brokerId, call.number, call.claims);
      line.unanswered = undefined;
      line.failed = false;
      line.window = reservation.remaining ? Math.min(line.window * WINDOW_GROWTH, MAX_CLAIMED) : FIRST_WINDOW;
      this.#takeAnswer(line, call, reservation);
      if (reservation.remaining) {
        // Who was to decide about those goes on here.
        for (const rival of this.#heldBellsNear(line)) this.#passOnHeld(rival);
      } else if (!line.lookAgain) {
        this.#listen(line, reservation.nextDueMs);
        this.#settleBellsNear(line);
        return;
      }
    }
    this.#setState(line, { kind: "resting" });
    if (isEmpty(line)) this.#drop(line);
    this.#settleBellsNear(line);
  }

  /** Those held for somebody who stands in this line, too. */
  #heldBellsNear(line: Line): Line[] {
    return [...this.#heldBells].filter((held) => {
      for (const waiter of held.rovers) if (line.rovers.has(waiter)) return true;
      return false;
    });
  }

  #settleBellsNear(line: Line): void {
    for (const held of this.#heldBellsNear(line)) this.#settleBell(held);
  }

  /** To be called when what was undecided may have been decided. */
  #settleBell(line: Line): void {
    if (line.state.kind === "resting" && this.#heldBells.has(line) && !this.#isUndecided(line)) this.#passOnHeld(line);
  }

  #passOnHeld(line: Line): void {
    this.#heldBells.delete(line);
    void this.#passOn(line.queue);
  }

  /** The bell is left to other brokers. When Redis is away it is lost. */
  async #passOn(queue: string): Promise<void> {
    await this.#options.ring(queue).catch(() => undefined);
  }

  /** Whether somebody in this line may turn out to take its jobs when another of his queues is answered. */
  #isUndecided(line: Line): boolean {
    for (const { consumer } of line.rovers) {
      if (consumer.capacity() <= 0) continue;
      for (const { name } of consumer.queues) {
        if (name !== line.queue && this.#lines.get(name)?.state.kind === "serving") return true;
      }
    }
    return false;
  }

  #retryLater(line: Line, error: unknown): void {
    this.#warn(line, "reserve fails, trying again", error);
    line.failed = true;
    for (const { consumer } of [...line.waiters, ...line.busy]) consumer.failed(error);
    if (this.#stopped) {
      this.#setState(line, { kind: "resting" });
      return;
    }
    this.#setState(line, { kind: "failing", timer: setTimeout(() => void this.#serve(line), RETRY_MS) });
  }

  #warn(line: Line, what: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    if (!line.failed) this.#options.log.warn(what, { queue: line.queue, error: message });
  }

  #listen(line: Line, nextDueMs: number | undefined): void {
    if (isEmpty(line) || this.#stopped) {
      this.#setState(line, { kind: "resting" });
      if (isEmpty(line)) this.#drop(line);
      return;
    }
    for (const { weights } of line.rovers) weights?.foundEmpty(line.queue);
    // A timer may fire up to 1 ms early, and then Redis would find nothing due.
    const waitMs = Math.min(
      nextDueMs === undefined ? this.#options.fallbackMs : nextDueMs + 1,
      this.#options.fallbackMs,
    );
    this.#setState(line, { kind: "listening", timer: setTimeout(() => void this.#serve(line), waitMs) });
    this.#wakeRivals(line);
  }

  /** Queues that had to wait because this one had jobs may have their turn now. */
  #wakeRivals(line: Line): void {
    const rivals = new Set<string>();
    for (const { consumer } of line.rovers) for (const { name } of consumer.queues) rivals.add(name);
    for (const name of rivals) {
      const rival = this.#lines.get(name);
      if (!rival || rival === line) continue;
      if (rival.state.kind === "serving") rival.lookAgain ||= this.#leftOut(rival);
      else if (rival.state.kind === "resting" && this.#wanted(rival)) void this.#serve(rival);
    }
  }

  /**
   * Whether the line is being served without somebody who had to look elsewhere first, could take jobs of it now, and
   * must ask itself. For others it is enough that the call in flight finds the queue empty: what comes later rings.
   */
  #leftOut(line: Line): boolean {
    const served = new Set(line.unanswered?.waiters);
    for (const waiter of line.askers) if (!served.has(waiter) && this.#room(line, waiter) > 0) return true;
    return false;
  }

  #wanted(line: Line): boolean {
    for (const waiter of line.waiters) if (this.#roomNow(line, waiter) > 0) return true;
    return false;
  }

  /** As #room; sets aside who has none, and stands nowhere else. */
  #roomNow(line: Line, waiter: Waiter): number {
    const room = this.#room(line, waiter);
    const isBusy = room <= 0 && waiter.pending === 0 && waiter.consumer.queues.length === 1;
    if (isBusy && line.waiters.delete(waiter)) line.busy.add(waiter);
    return room;
  }

  #onHandOverSettled(line: Line): void {
    if (isEmpty(line)) this.#drop(line);
    // While it was in flight, a bell may have been passed on for want of the room that it had claimed.
    else if (line.state.kind === "resting" && this.#wanted(line)) void this.#serve(line);
  }

  /** It has reserved nothing. */
  #takeBack({ waiters, claims }: ReserveCall): void {
    for (const [i, waiter] of waiters.entries()) waiter.pending -= claims[i]?.count ?? 0;
  }

  /** For all who stand in the line, or for the first of them, as far as `most` jobs go. */
  #compose(line: Line, most = MAX_CLAIMED): ReserveCall | undefined {
    const claims: Claim[] = [];
    const waiters: Waiter[] = [];
    let left = Math.min(most, MAX_CLAIMED);
    const ask = (waiter: Waiter) => {
      const count = Math.min(this.#roomNow(line, waiter), left);
      if (count <= 0) return;
      const { consumer } = waiter;
      const { leaseMs, workerId, availableByMs } = consumer;
      claims.push({ count, leaseMs, workerId, availableByMs, bytes: consumer.byteBudget() });
      waiters.push(waiter);
      waiter.pending += count;
      left -= count;
    };
    for (const waiter of line.waiters) {
      if (left === 0 || waiters.length >= line.window) break;
      ask(waiter);
    }
    if (most < MAX_CLAIMED) return claims.length === 0 ? undefined : { number: this.#nextCall++, claims, waiters };
    const asked = new Set(line.askers.size > 0 ? waiters : []);
    for (const waiter of line.askers) {
      if (asked.has(waiter)) continue;
      if (left === 0) {
        line.lookAgain = true;
        break;
      }
      ask(waiter);
    }
    return claims.length === 0 ? undefined : { number: this.#nextCall++, claims, waiters };
  }

  /** How many jobs of this line's queue this consumer may be given now. */
  #room(line: Line, { consumer, weights, pending }: Waiter): number {
    const capacity = consumer.capacity() - pending;
    // A budget of bytes cannot be divided among calls: nobody knows yet what they bring.
    if (capacity <= 0 || (pending > 0 && consumer.byteBudget())) return 0;
    if (consumer.queues.length === 1) return capacity;
    const hasJobs = (queue: string) => this.#lines.get(queue)?.state.kind !== "listening";
    if (!weights) {
      for (const { name } of consumer.queues) {
        if (name === line.queue) return capacity;
        if (hasJobs(name)) return 0;
      }
    }
    const rivals = consumer.queues.map(({ name }) => name).filter((name) => name !== line.queue && hasJobs(name));
    return Math.min(capacity, weights?.allowance(line.queue, rivals, capacity + pending) ?? capacity);
  }

  #takeAnswer(line: Line, call: ReserveCall, reservation: Reservation): void {
    if (reservation.nextDueMs !== undefined) this.#options.onNextDue(line.queue, reservation.nextDueMs);
    for (const [i, waiter] of call.waiters.entries()) {
      const jobs = reservation.jobs[i] ?? [];
      const claimed = call.claims[i]?.count ?? 0;
      waiter.pending -= claimed;
      if (this.#waiters.get(waiter.consumer) === waiter && !this.#stopped) {
        if (reservation.outgrown.includes(i)) waiter.consumer.outgrown();
        this.#handOutTo(line, waiter, jobs, claimed, reservation);
      } else if (jobs.length > 0) {
        this.#options.giveBack(jobs);
      }
    }
  }

  #handOutTo(line: Line, waiter: Waiter, jobs: readonly LeasedJob[], claimed: number, reservation: Reservation): void {
    const { consumer, weights } = waiter;
    if (jobs.length > 0) this.#deliver(line, waiter, jobs, reservation.pull);
    weights?.took(line.queue, jobs.length);
    if (jobs.length < claimed && !reservation.remaining) consumer.missed(line.queue);
    if (consumer.queues.length === 1) return;
    // What it did not get here it may get elsewhere, where its claim had stood in the way.
    const gotLess = jobs.length < claimed && reservation.remaining;
    if (gotLess || (weights && jobs.length > 0) || consumer.byteBudget()) this.wake(consumer);
  }

  #deliver(line: Line, waiter: Waiter, jobs: readonly LeasedJob[], pull: boolean): void {
    if (line.waiters.delete(waiter)) line.waiters.add(waiter);
    waiter.consumer.deliver(jobs, pull);
  }
}

/** Nobody stands in it. */
function isEmpty(line: Line): boolean {
  return line.waiters.size === 0 && line.busy.size === 0;
}
