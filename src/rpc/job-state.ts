import { JOB_STATES, type JobState, stateOf } from "../model/states.ts";
import type { Checks } from "./checks.ts";

const STATES: ReadonlyMap<number, JobState> = new Map(
  Object.values(JOB_STATES).flatMap((number) => {
    const state = stateOf(number);
    return state ? [[number, state] as const] : [];
  }),
);

/** UNSPECIFIED is no state of a job's. */
export function checkJobState(checks: Checks, field: string, state: number): JobState {
  return checks.choice(field, state, STATES, Object.keys(JOB_STATES).join(", "));
}
