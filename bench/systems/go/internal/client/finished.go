package client

import (
	"math"
	"sync"
	"sync/atomic"
)

// finished counts the jobs that workers have finished, and wakes those who wait for a count. Counting takes no lock
// unless somebody's count is reached.
type finished struct {
	count atomic.Int64
	// The least count that anybody waits for.
	next    atomic.Int64
	mutex   sync.Mutex
	waiting map[chan struct{}]int64
	failed  chan struct{}
	failure error
	once    sync.Once
}

func newFinished() *finished {
	f := &finished{waiting: map[chan struct{}]int64{}, failed: make(chan struct{})}
	f.next.Store(math.MaxInt64)
	return f
}

func (f *finished) add() {
	count := f.count.Add(1)
	if count < f.next.Load() {
		return
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.wake()
}

// fail lets everybody return who waits, now or later: nothing will be finished any more.
func (f *finished) fail(err error) {
	f.once.Do(func() {
		f.failure = err
		close(f.failed)
	})
}

// reached returns when so many jobs are finished.
func (f *finished) reached(count int64) error {
	reached := make(chan struct{})
	f.mutex.Lock()
	f.waiting[reached] = count
	f.wake()
	f.mutex.Unlock()
	select {
	case <-reached:
		return nil
	case <-f.failed:
		return f.failure
	}
}

// wake must be called with the mutex held. It names what is waited for next before it looks at the count, so that
// whoever counts up to it meanwhile comes here as well.
func (f *finished) wake() {
	for {
		next := int64(math.MaxInt64)
		for _, count := range f.waiting {
			next = min(next, count)
		}
		f.next.Store(next)
		count := f.count.Load()
		if count < next {
			return
		}
		for reached, target := range f.waiting {
			if target <= count {
				delete(f.waiting, reached)
				close(reached)
			}
		}
	}
}
