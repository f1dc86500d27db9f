/**
 * The queues of each of so many workers: with fewer workers than queues each takes several, with more there are several
 * on each queue.
 */
export function shareQueues(queues: readonly string[], workers: number): string[][] {
  const shares = Array.from({ length: workers }, (): string[] => []);
  for (let n = 0; n < Math.max(queues.length, workers); n++) {
    shares[n % workers]?.push(queues[n % queues.length] as string);
  }
  return shares;
}
