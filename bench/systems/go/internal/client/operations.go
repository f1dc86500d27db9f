package client

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

func run(driver Driver, op operation) (done, error) {
	switch op.Op {
	case "put":
		return put(driver, op)
	case "putMany":
		return putMany(driver, op)
	case "lifeCycle":
		return lifeCycle(driver, op)
	case "drain":
		return drain(driver, op)
	case "latency":
		return latency(driver, op)
	default:
		return done{}, fmt.Errorf("this client has no operation %q", op.Op)
	}
}

func put(driver Driver, op operation) (done, error) {
	jobs := newJobs(op.PayloadBytes)
	var count atomic.Int64
	start := time.Now()
	end := start.Add(milliseconds(op.DurationMs))
	err := AtOnce(op.Concurrency, func(int) error {
		for time.Now().Before(end) {
			if err := driver.Put(op.Queue, jobs.one()); err != nil {
				return err
			}
			count.Add(1)
		}
		return nil
	})
	return done{Jobs: int(count.Load()), ElapsedMs: since(start)}, err
}

func putMany(driver Driver, op operation) (done, error) {
	start := time.Now()
	err := putBatches(driver, op, func(int) error { return nil })
	return done{Jobs: op.Jobs, ElapsedMs: since(start)}, err
}

func lifeCycle(driver Driver, op operation) (done, error) {
	finished := newFinished()
	stop, err := driver.Work(work(op.Queues, op.Streams, finished))
	if err != nil {
		return done{}, err
	}
	defer stop()
	start := time.Now()
	err = putBatches(driver, op, func(put int) error {
		return finished.reached(int64(put - op.Unfinished))
	})
	if err == nil {
		err = finished.reached(int64(op.Jobs))
	}
	return done{Jobs: op.Jobs, ElapsedMs: since(start)}, err
}

func drain(driver Driver, op operation) (done, error) {
	finished := newFinished()
	start := time.Now()
	if op.FromMs > 0 {
		start = atTime(op.FromMs)
	}
	stop, err := driver.Work(work(op.Queues, op.Streams, finished))
	if err != nil {
		return done{}, err
	}
	defer stop()
	err = finished.reached(int64(op.Jobs))
	return done{Jobs: op.Jobs, ElapsedMs: since(start)}, err
}

// putBatches puts op.Jobs jobs, op.Calls batches at a time. mayPut is called before each batch with the count of jobs
// that will have been put with it, and returns when they may be.
func putBatches(driver Driver, op operation, mayPut func(put int) error) error {
	if len(op.Queues) == 0 || op.Batch < 1 || op.Calls < 1 {
		return errors.New("a load needs queues, a batch and calls")
	}
	jobs := newJobs(op.PayloadBytes)
	var dueAt time.Time
	if op.DueAtMs > 0 {
		dueAt = atTime(op.DueAtMs)
	}
	batches := (op.Jobs + op.Batch - 1) / op.Batch
	var begun atomic.Int64
	return AtOnce(op.Calls, func(int) error {
		for {
			batch := int(begun.Add(1)) - 1
			if batch >= batches {
				return nil
			}
			from, to := batch*op.Batch, min((batch+1)*op.Batch, op.Jobs)
			if err := mayPut(to); err != nil {
				return err
			}
			queue := op.Queues[batch%len(op.Queues)]
			if err := driver.PutMany(queue, jobs.many(to-from), dueAt); err != nil {
				return err
			}
		}
	})
}

func work(queues []string, streams int, finished *finished) Work {
	return Work{Queues: queues, Streams: streams, Finished: finished.add, Failed: finished.fail}
}

func milliseconds(count float64) time.Duration {
	return time.Duration(count * float64(time.Millisecond))
}

func since(start time.Time) float64 {
	return float64(time.Since(start)) / float64(time.Millisecond)
}

// atTime is the time of so many milliseconds since 1970.
func atTime(ms float64) time.Time {
	return time.UnixMicro(int64(ms * 1000))
}
