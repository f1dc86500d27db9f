package client

// ShareQueues says which queues each of so many workers takes: with fewer workers than queues each takes several, with
// more there are several on each queue.
func ShareQueues(queues []string, workers int) [][]string {
	shares := make([][]string, workers)
	for n := range max(len(queues), workers) {
		shares[n%workers] = append(shares[n%workers], queues[n%len(queues)])
	}
	return shares
}
