/**
 * Preloaded (`node --import`) into every process that the benchmark starts: ends it when the benchmark has gone without
 * a word, such as by kill -9. Both hold an end of the IPC channel, which then closes.
 */
process.on("disconnect", () => process.exit(1));
process.channel?.unref();
