package entratoken

import (
	"context"
	"sync"
	"time"
)

const (
	// readAtMost is the shortest time between two reads, whether they succeed or fail.
	readAtMost = time.Minute
	// readTimeout bounds one read with all of the SDK's retries.
	readTimeout = 10 * time.Second
)

// kept is a value that is read when it is asked for and due. Many may ask at once: one of them
// reads. Whoever comes meanwhile gets the value of before, or waits if that is of no use any more.
type kept[T any] struct {
	now  func() time.Time
	read func(context.Context) (T, error)
	due  func(T) time.Time // when the value should be read again
	ends func(T) time.Time // when the value is of no use any more
	gone func(T) error     // says so

	mu      sync.Mutex
	value   *T            // of the last read that succeeded
	err     error         // of the last read
	readAt  time.Time     // when the last read began
	reading chan struct{} // closed when the read under way ends; nil if there is none
}

// get returns the value and when it will be read again, or the last read's error if there is no
// value of any use.
func (k *kept[T]) get(ctx context.Context) (value T, again time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, reader := k.clock(), false
	if !k.before(k.due, now) && k.reading == nil && !k.justRead(now) {
		k.reading, k.readAt, reader = make(chan struct{}), now, true
		go k.readNow(context.WithoutCancel(ctx))
	}
	if reading := k.reading; reading != nil && (reader || !k.before(k.ends, now)) {
		k.mu.Unlock()
		select {
		case <-reading:
		case <-ctx.Done():
			err = ctx.Err()
		}
		k.mu.Lock()
		now = k.clock()
	}
	if k.before(k.ends, now) {
		return *k.value, k.again(), nil
	}
	if err == nil {
		err = k.err
	}
	if err == nil { // it has ended since the last read
		err = k.gone(*k.value)
	}
	return value, again, err
}

// readNow reads for all who wait, so it does not end when one of them gives up.
func (k *kept[T]) readNow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	value, err := k.read(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && !k.clock().Before(k.ends(value)) {
		err = k.gone(value)
	}
	if k.err = err; err == nil {
		k.value = &value
	}
	close(k.reading)
	k.reading = nil
}

// clock leaves out Go's monotonic clock, which stands still while Lambda freezes the process.
func (k *kept[T]) clock() time.Time { return k.now().Round(0) }

func (k *kept[T]) before(end func(T) time.Time, now time.Time) bool {
	return k.value != nil && now.Before(end(*k.value))
}

// justRead is false where the clock has been set back since the last read.
func (k *kept[T]) justRead(now time.Time) bool {
	return !now.Before(k.readAt) && now.Before(k.readAt.Add(readAtMost))
}

func (k *kept[T]) again() time.Time {
	again := k.due(*k.value)
	if next := k.readAt.Add(readAtMost); next.After(again) {
		again = next
	}
	if ends := k.ends(*k.value); ends.Before(again) {
		again = ends
	}
	return again
}
