/** What the hub knows of one queue: who waits there, and what it is doing about it. */
import type { Claim } from "../store/store.ts";
import type { Consumer } from "./consumer.ts";
import type { Weights } from "./weights.ts";

/** A consumer in the hub. `pending`: what has been claimed for it in calls that are not yet answered. */
export type Waiter = { readonly consumer: Consumer; readonly weights: Weights | undefined; pending: number };

/** One reserve call. It is kept, number and claims, until it has been answered: see Store.reserve. */
export type ReserveCall = {
  readonly number: number;
  readonly claims: readonly Claim[];
  readonly waiters: readonly Waiter[];
};

export type LineState =
  /** Empty when last looked at; waits for the bell, the next due time, or the fallback's timer. */
  | { readonly kind: "listening"; readonly timer: NodeJS.Timeout }
  /** A reserve call is in flight. */
  | { readonly kind: "serving" }
  /** Redis did not answer; the call is repeated after a while. */
  | { readonly kind: "failing"; readonly timer: NodeJS.Timeout }
  /** May have jobs, but nobody here can take any now. The bell is left to other brokers. */
  | { readonly kind: "resting" };

export type Line = {
  readonly queue: string;
  /** In the order of service: who got jobs goes to the end. */
  readonly waiters: Set<Waiter>;
  /**
   * Those who stand in this line only, and could take nothing when it last came to them: they are left alone until they
   * say that they can, because of thousands most may be at work. (With 10,000 of them a ring cost 565 µs, else 19.)
   */
  readonly busy: Set<Waiter>;
  /** Those of them that have other queues, too. */
  readonly rovers: Set<Waiter>;
  /** Those of them that have to be asked for in any case: see Consumer.asksItself. */
  readonly askers: Set<Waiter>;
  /** For so many of the others the next call asks: as few as the jobs that are expected, because there may be thousands. */
  window: number;
  state: LineState;
  /** Somebody came, or the bell rang, while a call was in flight: look once more before listening. */
  lookAgain: boolean;
  unanswered: ReserveCall | undefined;
  /** The numbers of the calls in flight that hand over. */
  readonly handOvers: Set<number>;
  /** The last call failed: that has been logged, and is not again until one succeeds. */
  failed: boolean;
};
