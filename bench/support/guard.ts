/**
 * What is to be done when the bench is killed and can do nothing itself: a small shell reads from a pipe which only this
 * process holds. When the process is gone, the pipe closes, and the shell goes on.
 */
import { spawn } from "node:child_process";

/** Does nothing any more. */
export type EndGuard = () => void;

/** `script` gets the arguments as $0, $1 and so on. It runs in a group of its own, so that Ctrl-C does not reach it. */
export function startGuard(script: string, ...args: readonly string[]): EndGuard {
  const guard = spawn("sh", ["-c", `cat >/dev/null; ${script}`, ...args], {
    cwd: "/",
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  guard.unref();
  // The pipe must not keep the bench alive either.
  if (guard.stdin && "unref" in guard.stdin && typeof guard.stdin.unref === "function") guard.stdin.unref();
  return () => void guard.kill("SIGKILL");
}
