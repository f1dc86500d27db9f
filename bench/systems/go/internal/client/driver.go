// Package client is the client process of a system that is driven from Go: it reads operations from stdin, a line of
// JSON each, does them with the system's driver, and writes an answer to stdout for each. system.ts, beside this module,
// says what the operations and the answers mean.
package client

import "time"

// A Driver does for one system what the operations are made of. Its methods are called from many goroutines at once.
type Driver interface {
	// Put puts one job in a call of its own, and returns when the system has acknowledged it.
	Put(queue string, job Job) error
	// PutMany puts one batch in the way that the system's documentation names for many, and returns when all of it is
	// acknowledged. With a time in dueAt the jobs may not be handed out before.
	PutMany(queue string, jobs []Job, dueAt time.Time) error
	// Work takes jobs and finishes each at once. It returns when all workers wait; stop returns when none does any more.
	Work(work Work) (stop func(), err error)
}

// A Job has an id of the producer's own. All jobs of an operation share one payload, whose bytes nobody changes.
type Job struct {
	ID      string
	Payload []byte
}

// Work is what workers have to do, and whom they tell. Its functions are called from many goroutines at once.
type Work struct {
	Queues  []string
	Streams int
	// Delivered is told as soon as the worker's code has the job; nil when nobody wants to know.
	Delivered func(id string)
	// Finished is told of each job whose acknowledgement the system has confirmed, or, where it confirms none, taken.
	Finished func()
	// Failed is told why the workers can't go on.
	Failed func(err error)
}
