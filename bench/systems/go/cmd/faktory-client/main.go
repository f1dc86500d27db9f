// faktory-client drives a Faktory server with Faktory's own client for Go: PUSH, PUSHB for batches, and workers that
// FETCH and ACK on a connection each, as its worker library for Go does, less that library's middleware.
package main

import (
	"fmt"
	"sync"
	"time"

	"baton/bench/internal/client"

	faktory "github.com/contribsys/faktory/client"
)

// Tried with 2 cores, of which others used most, with appendfsync everysec and always.
const (
	producers = 64
	// Whole life cycles a second. everysec: 20: 6,400; 50: 5,900; 100: 5,500; 200: 4,400. always: 20: 2,500; 50: 4,000;
	// 100: 3,500; 200: 2,300.
	fetchers = 50
	// A batch is put with so many PUSHBs on as many connections, because Faktory gives its Redis one job of a PUSHB after
	// the other. everysec: 1, 2 and 4 are alike; always: 1: 5,000 jobs a second; 2: 8,000; 4: 11,000; 10: 11,000.
	parts = 4
)

const (
	jobType = "bench"
	// As Faktory asks it of every worker process; after a minute without, the worker counts as dead.
	beatEvery = 15 * time.Second
)

type driver struct {
	server *faktory.Server
	// The producers that have nothing to do. A put that finds none waits for one.
	idle chan *faktory.Client
}

func main() {
	client.Main("github.com/contribsys/faktory", connect)
}

// The address is HOST:PORT.
func connect(address string) (client.Driver, error) {
	server := faktory.DefaultServer()
	server.Address = address
	d := &driver{server, make(chan *faktory.Client, producers)}
	for range producers {
		producer, err := server.Open()
		if err != nil {
			return nil, err
		}
		d.idle <- producer
	}
	// The connections that are opened from now on are this worker's.
	faktory.RandomProcessWid = faktory.RandomJid()
	return d, nil
}

func (d *driver) Put(queue string, job client.Job) error {
	producer := <-d.idle
	defer func() { d.idle <- producer }()
	return producer.Push(newJob(queue, job, time.Time{}))
}

func (d *driver) PutMany(queue string, jobs []client.Job, dueAt time.Time) error {
	return client.AtOnce(parts, func(n int) error {
		return d.push(queue, jobs[n*len(jobs)/parts:(n+1)*len(jobs)/parts], dueAt)
	})
}

func (d *driver) push(queue string, jobs []client.Job, dueAt time.Time) error {
	batch := make([]*faktory.Job, len(jobs))
	for n, job := range jobs {
		batch[n] = newJob(queue, job, dueAt)
	}
	producer := <-d.idle
	defer func() { d.idle <- producer }()
	refused, err := producer.PushBulk(batch)
	if err != nil {
		return err
	}
	for id, reason := range refused {
		return fmt.Errorf("%d jobs were not put, such as %s: %s", len(refused), id, reason)
	}
	return nil
}

func newJob(queue string, job client.Job, dueAt time.Time) *faktory.Job {
	pushed := faktory.NewJob(jobType, string(job.Payload))
	pushed.Jid = job.ID
	pushed.Queue = queue
	if !dueAt.IsZero() {
		pushed.At = dueAt.UTC().Format(time.RFC3339Nano)
	}
	return pushed
}

// Work's stop waits until each FETCH has been answered, which takes 2 s when there are no jobs: the server goes on with
// one whose connection is gone, and would take a job for it.
func (d *driver) Work(work client.Work) (func(), error) {
	stopped := make(chan struct{})
	var stopping sync.WaitGroup
	stop := func() {
		close(stopped)
		stopping.Wait()
	}
	beating, err := d.server.Open()
	if err != nil {
		return nil, err
	}
	stopping.Go(func() { beat(beating, work, stopped) })
	for _, queues := range client.ShareQueues(work.Queues, max(work.Streams, fetchers)) {
		worker, err := d.server.Open()
		if err != nil {
			stop()
			return nil, err
		}
		stopping.Go(func() { fetch(worker, queues, work, stopped) })
	}
	return stop, nil
}

func fetch(worker *faktory.Client, queues []string, work client.Work, stopped <-chan struct{}) {
	defer worker.Close()
	for {
		select {
		case <-stopped:
			return
		default:
		}
		job, err := worker.Fetch(queues...)
		if err != nil {
			work.Failed(err)
			return
		}
		if job == nil {
			continue
		}
		if work.Delivered != nil {
			work.Delivered(job.Jid)
		}
		if err := worker.Ack(job.Jid); err != nil {
			work.Failed(err)
			return
		}
		work.Finished()
	}
}

func beat(worker *faktory.Client, work client.Work, stopped <-chan struct{}) {
	defer worker.Close()
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-ticker.C:
			if _, err := worker.Beat(); err != nil {
				work.Failed(err)
				return
			}
		}
	}
}
