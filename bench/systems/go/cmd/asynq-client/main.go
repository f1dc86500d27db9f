// asynq-client drives asynq, a library over Redis: what of it a broker would do is done in this process.
//
// asynq has no call that puts many jobs (its issues 352, 535 and 723 ask for one), and each of its servers takes its jobs
// from Redis one after the other. So speed comes from doing much at once: a batch is put by many goroutines, and a few
// servers share the queues. Idle servers look for jobs at intervals, which cost Redis a script call each.
//
// Jobs that workers have done count when the handler returns: asynq then removes the job, and tells nobody when it has.
package main

import (
	"context"
	"sync"
	"time"

	"baton/bench/internal/client"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Tried with 2 cores, of which others used most: whole life cycles a second, and µs of CPU of Redis and client for each.
// With appendfsync always, commands that are under way at once share an fsync, so that more servers are better.
const (
	// everysec: 1: 6,600 (66 + 93); 2: 6,600 (57 + 73); 4: 8,200 (49 + 70); 8: 7,400 (50 + 77); 16: 5,400 (54 + 75).
	leastServers = 4
	// always: 4: 1,900 (98 + 128); 8: 1,400 (82 + 124); 16: 4,300 (70 + 103); 32: 3,500 (67 + 115).
	leastServersForAlways = 16
	// 4 to 100 each are alike.
	concurrencyOfServers = 25
	// Of all servers together, but 1 of each at least.
	mostConcurrency = 400
	// 20, 50, 100 and 300 are alike.
	connections = 100
	// So many jobs of a batch are put at once. 5, 10, 25 and 100 are alike.
	putsAtOnce = 25
)

// How often an idle server looks for jobs. asynq's default, 1 s, is its users' complaint, and its documentation warns of
// low values: 1 ms takes a tenth of the life cycles, but a job is delivered after 0.2 ms instead of 1.4.
const (
	lookEvery            = 5 * time.Millisecond
	lookEveryForLatency  = time.Millisecond
	lookEveryPerServer   = time.Millisecond
	defaultDelayedLookup = 5 * time.Second
	// Jobs that come due are looked for once in so many looks.
	looksPerDelayedLook = 20
)

const taskType = "bench"

type driver struct {
	redis        redis.UniversalClient
	client       *asynq.Client
	leastServers int
}

func main() {
	client.Main("github.com/hibiken/asynq", connect)
}

// The address is the path of Redis's socket.
func connect(address string) (client.Driver, error) {
	redis := redis.NewClient(&redis.Options{Network: "unix", Addr: address, PoolSize: connections})
	settings, err := redis.ConfigGet(context.Background(), "appendfsync").Result()
	if err != nil {
		return nil, err
	}
	d := &driver{redis, asynq.NewClientFromRedisClient(redis), leastServers}
	if settings["appendfsync"] == "always" {
		d.leastServers = leastServersForAlways
	}
	return d, nil
}

func (d *driver) Put(queue string, job client.Job) error {
	return d.enqueue(queue, job, time.Time{})
}

func (d *driver) PutMany(queue string, jobs []client.Job, dueAt time.Time) error {
	return client.AtOnce(putsAtOnce, func(n int) error {
		for ; n < len(jobs); n += putsAtOnce {
			if err := d.enqueue(queue, jobs[n], dueAt); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *driver) enqueue(queue string, job client.Job, dueAt time.Time) error {
	options := []asynq.Option{asynq.Queue(queue), asynq.TaskID(job.ID)}
	if !dueAt.IsZero() {
		options = append(options, asynq.ProcessAt(dueAt))
	}
	_, err := d.client.Enqueue(asynq.NewTask(taskType, job.Payload), options...)
	return err
}

func (d *driver) Work(work client.Work) (func(), error) {
	count := max(work.Streams, d.leastServers)
	look := max(lookEvery, time.Duration(count)*lookEveryPerServer)
	if work.Delivered != nil {
		look = lookEveryForLatency
	}
	handler := asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		if work.Delivered != nil {
			work.Delivered(task.ResultWriter().TaskID())
		}
		work.Finished()
		return nil
	})
	var servers []*asynq.Server
	stop := func() {
		var stopping sync.WaitGroup
		for _, server := range servers {
			stopping.Go(server.Shutdown)
		}
		stopping.Wait()
	}
	for _, queues := range client.ShareQueues(work.Queues, count) {
		server := asynq.NewServerFromRedisClient(d.redis, asynq.Config{
			Concurrency:              min(concurrencyOfServers, max(1, mostConcurrency/count)),
			Queues:                   weights(queues),
			TaskCheckInterval:        look,
			DelayedTaskCheckInterval: min(looksPerDelayedLook*look, defaultDelayedLookup),
			LogLevel:                 asynq.ErrorLevel,
		})
		if err := server.Start(handler); err != nil {
			stop()
			return nil, err
		}
		servers = append(servers, server)
	}
	return stop, nil
}

// All queues weigh the same. The order in which a server tries them is then drawn by lot; in strict order it would try
// the empty ones first again and again: with 100 queues that is 1,300 life cycles a second instead of 3,700.
func weights(queues []string) map[string]int {
	weights := make(map[string]int, len(queues))
	for _, queue := range queues {
		weights[queue] = 1
	}
	return weights
}
