package signals

import "context"

// What has happened on the customer's page, as metrics.
const (
	InvitationsOpened = "InvitationsOpened"
	SignedIn          = "SignedIn"
	ConnectRefused    = "ConnectRefused"
	Connected         = "Connected"
)

// Connect counts one of them.
func (m Metrics) Connect(ctx context.Context, what string) {
	m.write(ctx, nil, []metric{{what, count, 1}})
}
