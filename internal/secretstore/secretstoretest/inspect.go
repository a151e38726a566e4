package secretstoretest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Value is the AWSCURRENT value of a secret that is not being deleted.
func (s *Server) Value(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sec := s.liveLocked(name); sec != nil {
		if v := sec.labelled(current); v != nil {
			return v.text(), true
		}
	}
	return "", false
}

// Description is that of a secret that is not being deleted.
func (s *Server) Description(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sec := s.liveLocked(name); sec != nil {
		return sec.Description, true
	}
	return "", false
}

// Names are the secrets that are not being deleted, sorted.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.purge(s.now())
	var names []string
	for name, sec := range s.store.names {
		if !sec.pending() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Snapshot is a dump of every secret, those being deleted included, for comparison: the same text means the same names,
// descriptions, tags, values and labels. What differs from run to run (ARNs, version IDs, dates) is left out.
func (s *Server) Snapshot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.purge(s.now())
	secrets, _, _ := s.store.order("name")
	var b strings.Builder
	for _, sec := range secrets {
		if sec.gone {
			continue
		}
		fmt.Fprintf(&b, "%s\n  description %q\n", sec.Name, sec.Description)
		if sec.pending() {
			b.WriteString("  deletion pending\n")
		}
		for _, t := range sec.Tags {
			fmt.Fprintf(&b, "  tag %q=%q\n", t.Key, t.Value)
		}
		fmt.Fprintf(&b, "  versions %d\n", len(sec.Versions))
		for _, v := range sec.Versions {
			fmt.Fprintf(&b, "  %q %v\n", v.text(), v.Labels)
		}
	}
	return b.String()
}

// Put makes name hold value and description, whatever it was before, without a call and past all limits.
func (s *Server) Put(name, value, description string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.store.purge(now)
	sec := s.store.names[name]
	if sec == nil {
		sec = s.store.add(name, now)
	}
	sec.Deletion = time.Time{}
	sec.Description = description
	if len(sec.Versions) >= maxVersions {
		sec.Versions = sec.Versions[1:]
	}
	v := &version{ID: newUUID(), payload: payload{SecretString: &value}, Created: now}
	_ = sec.addVersion(v, nil) // there is room
	s.store.touch(sec, now)
	_ = s.saveLocked() // Close reports it
}

func (s *Server) liveLocked(name string) *secret {
	s.store.purge(s.now())
	if sec := s.store.names[name]; sec != nil && !sec.pending() {
		return sec
	}
	return nil
}

func (p payload) text() string {
	if p.SecretString != nil {
		return *p.SecretString
	}
	return string(p.SecretBinary)
}
