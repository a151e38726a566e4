package connector

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	maxTries   = 6
	firstPause = 50 * time.Millisecond // doubles with each
)

// Retry calls try until it is not beaten. A try reads, decides and writes. It is beaten if another
// caller wrote first. Retry pauses between tries. After maxTries it fails with a temporary error:
// the same request may work later.
func Retry(ctx context.Context, try func() (beaten bool, err error)) error {
	pause := firstPause
	for n := 1; ; n++ {
		beaten, err := try()
		switch {
		case !beaten:
			return err
		case n == maxTries && errors.As(err, new(*StoreError)):
			return err
		case n == maxTries:
			return &StoreError{Code: CodeContended, Temporary: true}
		case !sleep(ctx, pause/2+rand.N(pause)):
			return ctx.Err()
		}
		pause *= 2
	}
}

// sleep reports whether the context outlasted the pause.
func sleep(ctx context.Context, d time.Duration) bool {
	pause, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-pause.Done()
	return ctx.Err() == nil
}

// maxCalls is the most calls to the store's service that one request, or one connection of a sweep,
// may cause, retries included.
const maxCalls = 40

type callsKey struct{}

// WithCalls bounds the calls to the store's service that are made with the context.
func WithCalls(ctx context.Context) context.Context {
	return context.WithValue(ctx, callsKey{}, new(atomic.Int32))
}

// SpendCall is for a [Store], before each call to its service. It reports whether the call may be
// made.
func SpendCall(ctx context.Context) bool {
	calls, bounded := ctx.Value(callsKey{}).(*atomic.Int32)
	return !bounded || calls.Add(1) <= maxCalls
}
