package secretstoretest

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Secret is a secret as it is at one moment, without any lag.
type Secret struct {
	Version     string   // the ID of the version that is AWSCURRENT; empty if there is none
	Value       string   // of that version
	Versions    []string // the IDs of all versions, oldest first
	Description string
	Tags        map[string]string
	Policy      string // the resource policy
	Pending     bool   // its deletion is pending

	Replicas      []string // the Regions that the secret is replicated to
	PrimaryRegion string   // of a secret with replicas: its own Region, or if it is a replica another
	OwningService string   // the service that manages the secret
}

// Look returns the secret with that name, and whether there is one.
func (s *Server) Look(name string) (Secret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.purge(s.options.Now())
	sec := s.store.names[name]
	if sec == nil {
		return Secret{}, false
	}
	return sec.look(), true
}

func (sec *secret) look() Secret {
	x := Secret{
		Description: sec.Description, Policy: sec.Policy, Tags: make(map[string]string), Pending: sec.pending(),
		Replicas: sec.replicas, PrimaryRegion: sec.primaryRegion, OwningService: sec.owningService,
	}
	maps.Copy(x.Tags, sec.Tags)
	for _, v := range sec.Versions {
		x.Versions = append(x.Versions, v.ID)
	}
	if v := sec.current(); v != nil {
		x.Version, x.Value = v.ID, v.Value
	}
	return x
}

// Value is the AWSCURRENT value of a secret that is not being deleted.
func (s *Server) Value(name string) (string, bool) {
	x, _ := s.Look(name)
	if x.Pending || x.Version == "" {
		return "", false
	}
	return x.Value, true
}

// Description is that of a secret that is not being deleted.
func (s *Server) Description(name string) (string, bool) {
	x, ok := s.Look(name)
	if !ok || x.Pending {
		return "", false
	}
	return x.Description, true
}

// Names are the secrets that are not being deleted, sorted.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.purge(s.options.Now())
	var names []string
	for name, sec := range s.store.names {
		if !sec.pending() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Snapshot is a dump of every secret, those being deleted included, for comparison: the same text
// means the same names, descriptions, tags, values and labels. It leaves out what differs from run
// to run: ARNs, version IDs and dates.
func (s *Server) Snapshot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.purge(s.options.Now())
	var b strings.Builder
	for _, sec := range slices.SortedFunc(maps.Values(s.store.names), byName) {
		fmt.Fprintf(&b, "%s\n  description %q, tags %q, deletion pending %t\n", sec.Name, sec.Description, sec.Tags, sec.pending())
		for _, v := range sec.Versions {
			fmt.Fprintf(&b, "  %q %v\n", v.Value, v.Labels)
		}
	}
	return b.String()
}

// Edit lets a test do what people and other tools do to a secret. It is no call, and no limit
// applies. f changes the secret that Look would return. If there is none, Edit first makes one
// without a version, as Terraform and CloudFormation do. Another Version moves AWSCURRENT there.
// Another Value, or no Version, makes a new version with that Value. Versions cannot be changed.
// The Server is locked during f.
func (s *Server) Edit(name string, f func(*Secret)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.store.purge(now)
	sec := s.store.names[name]
	if sec == nil {
		sec = &secret{Name: name, ARN: s.store.newARN(name), Created: now}
		s.store.enter(sec)
	}
	before, x := sec.look(), sec.look()
	f(&x)
	sec.Description, sec.Policy, sec.Tags = x.Description, x.Policy, x.Tags
	sec.replicas, sec.primaryRegion, sec.owningService = x.Replicas, x.PrimaryRegion, x.OwningService
	switch {
	case x.Value != before.Value, x.Version == "" && before.Version != "":
		if len(sec.Versions) >= maxVersions {
			sec.Versions = sec.Versions[1:]
		}
		_ = sec.addVersion(&version{ID: rand.Text() + rand.Text(), Value: x.Value, Created: now}) // there is room
	case x.Version != before.Version:
		sec.promote(sec.version(x.Version))
	}
	switch {
	case !x.Pending:
		sec.Deletion = time.Time{}
	case !before.Pending:
		sec.Deletion = now.Add(30 * 24 * time.Hour)
		s.store.pending = append(s.store.pending, sec)
	}
	s.store.touch(sec, now)
	_ = s.saveLocked() // Close reports it
}

// Reset forgets all secrets, and the lists of them.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = &store{Options: s.options, names: make(map[string]*secret)}
}

// Put makes name hold value, as a new version, and description, whatever it was before.
func (s *Server) Put(name, value, description string) {
	s.Edit(name, func(x *Secret) {
		x.Version, x.Value, x.Description, x.Pending = "", value, description, false
	})
}
