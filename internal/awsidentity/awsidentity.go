// Package awsidentity issues assertions that say which IAM role this program
// runs as, for apps that store no credential. It is the
// [entra.AssertionSource] of both functions.
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
	// signing is the only algorithm that Entra supports for federation.
	signing = "RS256"
	// life is what a sweep may take, with as much again to spare. An assertion
	// may not outlive the session of its role, and STS allows an hour at most.
	life = 10 * time.Minute
	// early is how long before its end an assertion is replaced.
	early = time.Minute
	// pause is how long a failure stands, so that a sweep of many connections does
	// not ask anew for each.
	pause = time.Second
)

// Source asks AWS STS, and keeps an assertion for as long as it is good, so that
// one serves a whole sweep. It is safe for concurrent use.
type Source struct {
	client *sts.Client
	now    func() time.Time

	mu     sync.Mutex // held while asking, so that others wait for the answer
	issued map[string]assertion
}

// assertion is what STS answered: a JWT, or an error.
type assertion struct {
	jwt   entra.Secret
	err   error
	until time.Time // when to ask again
}

var _ entra.AssertionSource = (*Source)(nil)

// New returns a Source. The client needs a Region: the global endpoint of STS
// does not know the call.
func New(client *sts.Client, now func() time.Time) *Source {
	return &Source{client: client, now: now, issued: make(map[string]assertion)}
}

// Assertion returns an assertion for the audience.
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

// explain keeps nothing of the error's text, which names roles and accounts.
func explain(err error) error {
	switch awserr.Code(err) {
	case (*types.OutboundWebIdentityFederationDisabledException)(nil).ErrorCode():
		return &entra.Error{Class: entra.Refused, Code: "federation_disabled", Advice: entra.Advice{
			Title:  "AWS does not issue identity tokens for this account",
			Action: "Turn on outbound web identity federation for the AWS account in IAM > Account settings, and deploy with the parameter Federation=true.",
		}}
	case "AccessDenied":
		return &entra.Error{Class: entra.Refused, Code: "federation_denied", Advice: entra.Advice{
			Title:  "The function may not ask AWS STS for an identity token",
			Action: "Deploy with the parameter Federation=true, which grants sts:GetWebIdentityToken to both functions.",
		}}
	}
	return &entra.Error{Class: entra.Unavailable, Code: "sts_unavailable", Advice: entra.Advice{
		Title:  "AWS STS did not issue an identity token",
		Action: "Nothing, if it passes: the next sweep tries again.",
	}}
}
