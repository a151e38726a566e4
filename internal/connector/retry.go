package connector

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	maxTries   = 6
	firstPause = 50 * time.Millisecond // doubles with each
)

// Retry reads, decides and writes, and does so again where another caller was faster: try then reports
// that it was beaten. There is a pause between tries and a limit to them. Where the limit is reached
// the store has too much going on for one request, which passes.
func Retry(ctx context.Context, op string, try func() (beaten bool, err error)) error {
	pause := firstPause
	for range maxTries {
		beaten, err := try()
		if !beaten {
			return err
		}
		if !sleep(ctx, pause/2+rand.N(pause)) {
			return ctx.Err()
		}
		pause *= 2
	}
	return &StoreError{Op: op, Code: "changed_too_often", Temporary: true}
}

// sleep reports whether the context outlasted the pause.
func sleep(ctx context.Context, d time.Duration) bool {
	pause, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-pause.Done()
	return ctx.Err() == nil
}
