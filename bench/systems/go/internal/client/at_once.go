package client

// AtOnce calls run with 0 to count-1, all at once, and returns when all calls have ended, with one of their errors.
func AtOnce(count int, run func(n int) error) error {
	ended := make(chan error, count)
	for n := range count {
		go func() { ended <- run(n) }()
	}
	var failure error
	for range count {
		if err := <-ended; err != nil {
			failure = err
		}
	}
	return failure
}
