package client

import (
	"errors"
	"sync"
	"time"
)

// latency puts each job at its time, whether or not the one before has arrived, and measures from the put's call to the
// moment when a worker's code has the job.
func latency(driver Driver, op operation) (done, error) {
	finished := newFinished()
	arrivals := arrivals{putAt: map[string]time.Time{}}
	todo := work([]string{op.Queue}, 1, finished)
	todo.Delivered = func(id string) {
		if err := arrivals.arrived(id); err != nil {
			finished.fail(err)
		}
	}
	stop, err := driver.Work(todo)
	if err != nil {
		return done{}, err
	}
	defer stop()
	jobs := newJobs(op.PayloadBytes)
	interval := milliseconds(1000 / op.PerSecond)
	start := time.Now()
	for i := range op.Jobs {
		time.Sleep(time.Until(start.Add(time.Duration(i) * interval)))
		job := jobs.one()
		go func() {
			arrivals.put(job.ID)
			if err := driver.Put(op.Queue, job); err != nil {
				finished.fail(err)
			}
		}()
	}
	err = finished.reached(int64(op.Jobs))
	elapsedMs := since(start)
	return done{Jobs: op.Jobs, ElapsedMs: elapsedMs, LatenciesMs: arrivals.latenciesMs}, err
}

type arrivals struct {
	mutex       sync.Mutex
	putAt       map[string]time.Time
	latenciesMs []float64
}

func (a *arrivals) put(id string) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.putAt[id] = time.Now()
}

func (a *arrivals) arrived(id string) error {
	now := time.Now()
	a.mutex.Lock()
	defer a.mutex.Unlock()
	putAt, known := a.putAt[id]
	if !known {
		return errors.New("a job came that had not been put, or came twice")
	}
	delete(a.putAt, id)
	a.latenciesMs = append(a.latenciesMs, float64(now.Sub(putAt))/float64(time.Millisecond))
	return nil
}
