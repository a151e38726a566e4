// Package awsidentity gets assertions that prove which IAM role this program runs as, for apps that
// store no credential. Both functions use it as their [entra.AssertionSource].
package awsidentity

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"entra-connector/internal/awserr"
	"entra-connector/pkg/entra"
)

const (
	// signing is the only algorithm that Entra accepts for federation.
	signing = "RS256"
	// life is twice the time that a sweep may take. An assertion may not outlive the session of its
	// role, and STS allows at most an hour.
	life = 10 * time.Minute
	// early is how long before its expiry an assertion is replaced.
	early = time.Minute
	// pause is how long a failure stands before STS is asked again, so that a sweep does not
	// ask for each connection.
	pause = time.Second
)

// Source gets assertions from AWS STS. It keeps one as long as it is valid, so that it serves a
// whole sweep. A Source is safe for concurrent use.
type Source struct {
	client *sts.Client
	now    func() time.Time

	mu     sync.Mutex           // held during a call to STS, so that others wait for its answer
	issued map[string]assertion // by audience
}

// assertion is what STS answered: a JWT or an error.
type assertion struct {
	jwt   entra.Secret
	err   error
	until time.Time // when to ask again
}

var _ entra.AssertionSource = (*Source)(nil)

// New returns a Source. The client needs a Region, since the global endpoint of STS does not have
// GetWebIdentityToken.
func New(client *sts.Client, now func() time.Time) *Source {
	return &Source{client: client, now: now, issued: make(map[string]assertion)}
}

// Assertion returns an assertion for the audience. Its error is an [entra.Error], or the context's.
func (s *Source) Assertion(ctx context.Context, audience string) (entra.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.issued[audience]; ok && s.now().Before(a.until) {
		return a.jwt, a.err
	}
	out, err := s.client.GetWebIdentityToken(ctx, &sts.GetWebIdentityTokenInput{
		Audience: []string{audience}, SigningAlgorithm: aws.String(signing), DurationSeconds: aws.Int32(int32(life / time.Second)),
	})
	if ctx.Err() != nil {
		return entra.Secret{}, ctx.Err()
	}
	var a assertion
	if err != nil {
		a = assertion{err: explain(err), until: s.now().Add(pause)}
	} else {
		a = assertion{jwt: entra.NewSecret(aws.ToString(out.WebIdentityToken)), until: aws.ToTime(out.Expiration).Add(-early)}
	}
	s.issued[audience] = a
	return a.jwt, a.err
}

// explain drops the error's text, since it names roles and accounts.
func explain(err error) error {
	failed := func(class entra.Class, code, title, action string) error {
		return &entra.Error{Class: class, Code: code, Advice: entra.Advice{Title: title, Action: action}}
	}
	switch awserr.Code(err) {
	case (*types.OutboundWebIdentityFederationDisabledException)(nil).ErrorCode():
		return failed(entra.Refused, "federation_disabled", "AWS does not issue identity tokens for this account",
			"Turn on outbound web identity federation for the AWS account in IAM > Account settings, and deploy with the parameter Federation=true.")
	case "AccessDenied":
		return failed(entra.Refused, "federation_denied", "The function may not ask AWS STS for an identity token",
			"Deploy with the parameter Federation=true, which grants sts:GetWebIdentityToken to both functions.")
	}
	return failed(entra.Unavailable, "sts_unavailable", "AWS STS did not issue an identity token", "Wait: the next sweep tries again.")
}
