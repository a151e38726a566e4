package secretstore

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"

	"entra-connector/internal/connector"
)

// What AWS allows per second, account and Region (Secrets Manager User Guide, "Quotas"; for
// ListSecrets the announcement of 2022-11-11). Others in the account use it too.
const (
	writesQuota = 50
	listsQuota  = 100
	readsQuota  = 10000
)

// pace is the [aws.RetryerV2] of calls that share one of AWS's quotas. It keeps
// their attempts below a ceiling and, if AWS throttles all the same, below
// what the others leave: a throttled attempt lowers the limit by a quarter, and
// a minute of success raises it from nothing to the ceiling again.
type pace struct {
	aws.RetryerV2
	ceiling rate.Limit
	limiter *rate.Limiter

	mu        sync.Mutex
	loweredAt time.Time
}

// newPace without a ceiling (zero) limits nothing until AWS throttles. Then the quota is the
// ceiling.
func newPace(ceiling, quota float64, maxAttempts int) *pace {
	p := &pace{
		RetryerV2: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = maxAttempts }),
		ceiling:   rate.Limit(ceiling),
	}
	p.limiter = rate.NewLimiter(p.ceiling, 1)
	if ceiling == 0 {
		p.ceiling = rate.Limit(quota)
		p.limiter.SetLimit(rate.Inf)
	}
	return p
}

// of makes it the retryer of a call.
func (p *pace) of(o *secretsmanager.Options) { o.Retryer = p }

// errNoTurn reports that the deadline comes before an attempt's turn.
var errNoTurn = errors.New("no turn before the deadline")

// errSpent reports that a request, or a connection of a sweep, has made all the calls that it may.
var errSpent = errors.New("too many calls")

// GetAttemptToken waits for the attempt's turn.
func (p *pace) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	if !connector.SpendCall(ctx) {
		return nil, errSpent
	}
	if !p.wait(ctx) {
		return nil, errNoTurn
	}
	return p.learn, nil
}

// tick is how often turns come round for those who have to wait for longer than that. Those of one tick go
// on together. With a moment of its own for each, the process would be woken for each, which takes more
// processor time than the work itself.
const tick = 100 * time.Millisecond

// wait waits for a turn. It gives up at once if the turn comes after the deadline.
func (p *pace) wait(ctx context.Context) bool {
	turn := p.limiter.Reserve()
	pause := turn.Delay()
	if pause > tick {
		at := time.Now().Add(pause)
		pause = time.Until(at.Truncate(tick).Add(tick))
	}
	deadline, ok := ctx.Deadline()
	if ctx.Err() != nil || ok && time.Until(deadline) < pause {
		turn.Cancel()
		return false
	}
	if pause <= 0 {
		return true
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		turn.Cancel()
		return false
	}
}

// IsErrorRetryable also retries an answer that broke off, which the SDK does not do
// (aws-sdk-go-v2 #3494). Every call here may be repeated.
func (p *pace) IsErrorRetryable(err error) bool {
	var garbled *smithy.DeserializationError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &garbled) || p.RetryerV2.IsErrorRetryable(err)
}

// throttles are the errors that mean too many requests. The SDK counts
// LimitExceededException among them, which here is about one secret's versions.
var throttles = retry.IsErrorThrottles{retry.IsErrorThrottleFunc(func(err error) aws.Ternary {
	var limit *types.LimitExceededException
	if errors.As(err, &limit) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}), retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}}

// lowered is how long a lower limit takes to show. Attempts that are throttled
// sooner had their turn under the old limit.
const lowered = 2 * time.Second

// learn adapts the limit to the outcome of an attempt.
func (p *pace) learn(err error) error {
	throttled := throttles.IsErrorThrottle(err) == aws.TrueTernary
	p.mu.Lock()
	defer p.mu.Unlock()
	switch limit := p.limiter.Limit(); {
	case throttled && time.Since(p.loweredAt) > lowered:
		p.loweredAt = time.Now()
		p.limiter.SetLimit(max(min(limit, p.ceiling)*3/4, min(1, p.ceiling)))
	case err == nil && limit < p.ceiling:
		p.limiter.SetLimit(min(limit+p.ceiling/limit/60, p.ceiling))
	}
	return nil
}
