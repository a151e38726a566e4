// Package connector keeps connections: apps and the tokens of their customer tenants. [Provisioner]
// creates a connection, [Apps] creates, replaces and deletes apps, [Refresher] refreshes one
// connection by hand, and [Sweeper] refreshes everything that is due.
//
// All of them ask Entra through an [entra.Client] and keep what they know in a [Store] that the
// caller supplies. Credentials are proved by getting a token with them before anything is stored.
// Every step can be repeated: the same call finishes what an interrupted one began.
//
// The package knows nothing of Lambda or Secrets Manager. Of HTTP it knows the API's routes, which
// the advice for a person names.
package connector
