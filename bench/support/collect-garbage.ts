/**
 * Preloaded (`node --import`) into every process that the benchmark starts: SIGUSR2 makes it collect its garbage, so that
 * what is measured of its memory is in use.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");
process.on("SIGUSR2", () => collect());
