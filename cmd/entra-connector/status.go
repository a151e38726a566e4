package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"entra-connector/cmd/entra-connector/internal/api"
	"entra-connector/cmd/entra-connector/internal/screen"
)

// overview is what an operator looks at in the morning.
type overview struct {
	At          time.Time      `json:"at"`
	Apps        int            `json:"apps"`
	Connections int            `json:"connections"`
	ByStatus    map[string]int `json:"by_status"`
	NeedsPerson []trouble      `json:"needs_person"`
	Warnings    []trouble      `json:"warnings"`
	Expiring    []api.App      `json:"expiring"` // whose credential expires within 30 days
	// Shortest is the connection whose token expires first, of those that are ok or retrying.
	Shortest *api.Connection `json:"shortest_life,omitempty"`
}

// trouble is what several connections of an app have in common: one remedy serves them all.
type trouble struct {
	App    string `json:"app"`
	Status string `json:"status"`
	api.Advice
	Connections []string          `json:"connections"`
	ConsentURLs map[string]string `json:"consent_urls,omitempty"` // by connection: each tenant has its own
}

// oversee sums up what the API lists.
func oversee(apps []api.App, connections []api.Connection, now time.Time) overview {
	o := overview{At: now.UTC().Truncate(time.Second), Apps: len(apps), Connections: len(connections),
		ByStatus: map[string]int{}, NeedsPerson: []trouble{}, Warnings: []trouble{}, Expiring: []api.App{}}
	for i, c := range connections {
		o.ByStatus[c.Status]++
		healthy := (c.Status == "ok" || c.Status == "retrying") && !c.ExpiresAt.IsZero()
		if healthy && (o.Shortest == nil || c.ExpiresAt.Before(o.Shortest.ExpiresAt)) {
			o.Shortest = &connections[i]
		}
		if c.Error != nil && (c.Status != "retrying" || c.ExpiresAt.Before(now)) {
			o.NeedsPerson = join(o.NeedsPerson, c, c.Error.Advice, c.Error.ConsentURL)
		}
		for _, w := range c.Warnings {
			o.Warnings = join(o.Warnings, c, w, "")
		}
	}
	slices.SortStableFunc(o.NeedsPerson, func(a, b trouble) int { return len(b.Connections) - len(a.Connections) })
	for _, a := range apps {
		if !a.ExpiresAt.IsZero() && a.ExpiresAt.Before(now.AddDate(0, 0, 30)) {
			o.Expiring = append(o.Expiring, a)
		}
	}
	slices.SortFunc(o.Expiring, func(a, b api.App) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
	return o
}

// join adds a connection to those in the same trouble.
func join(all []trouble, c api.Connection, advice api.Advice, consentURL string) []trouble {
	i := slices.IndexFunc(all, func(t trouble) bool { return t.App == c.App && t.Status == c.Status && t.Advice == advice })
	if i < 0 {
		i = len(all)
		all = append(all, trouble{App: c.App, Status: c.Status, Advice: advice, ConsentURLs: map[string]string{}})
	}
	all[i].Connections = append(all[i].Connections, c.String())
	if consentURL != "" {
		all[i].ConsentURLs[c.String()] = consentURL
	}
	return all
}

func (p *program) addStatus(root *cobra.Command) {
	var watch bool
	var every time.Duration
	cmd := p.add(root, "status", "Show what is fresh, what needs a person and what expires", cobra.NoArgs,
		func(ctx context.Context, c *api.Client, _ []string) error {
			var last overview
			var lost error // why the last look failed
			for {
				apps, err := c.Apps(ctx)
				var connections []api.Connection
				if err == nil {
					connections, err = p.connections(ctx, c, "")
				}
				switch lost = err; {
				case ctx.Err() != nil && !last.At.IsZero():
					return nil // that is how watching ends
				case err == nil:
					last = oversee(apps, connections, time.Now())
				case last.At.IsZero() || exitCode(err) == exitRefused:
					return err
				}
				draw := func(out *screen.Pane) { drawOverview(out, last, lost) }
				if err := p.print(last, func() {
					if watch {
						screen.Repaint(draw)
					} else {
						draw(&p.out)
					}
				}); err != nil || !watch || !sleep(ctx, max(every, time.Second)) {
					return err
				}
			}
		})
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "stay, and look again and again until Ctrl-C")
	cmd.Flags().DurationVar(&every, "every", 15*time.Second, "`time` between two looks")
}

func drawOverview(out *screen.Pane, o overview, lost error) {
	if lost != nil {
		out.Say("What follows is from " + o.At.Format(time.DateTime) + " UTC. " + lost.Error())
		out.Line("")
	}
	drawCounts(out, o)
	if len(o.NeedsPerson) == 0 {
		out.Line("Nothing needs a person.\n")
	}
	drawTroubles(out, "NEEDS A PERSON", o.NeedsPerson)
	drawTroubles(out, "WARNINGS", o.Warnings)
	if len(o.Expiring) == 0 {
		out.Line("No credential is known to expire within 30 days.")
		return
	}
	out.Line(out.Paint(screen.Bold, "EXPIRES WITHIN 30 DAYS"))
	drawApps(out, o.Expiring)
	out.Say("Create a new one in Entra, and give it to the app: entra-connector app put APP")
}

func drawCounts(out *screen.Pane, o overview) {
	switch {
	case o.Apps == 0 && o.Connections == 0:
		out.Say("There are no apps and no connections yet. Begin with: entra-connector app put NAME")
		return
	case o.Connections == 0:
		out.Say("There are no connections yet. Make one: entra-connector connect TENANT")
		return
	}
	out.Line(out.Paint(screen.Bold, plural(o.Connections, "connection")+" of "+plural(o.Apps, "app")+", "+o.At.Format(time.DateTime)+" UTC"))
	for _, status := range [][2]string{{"ok", "fresh"}, {"retrying", "trying again by themselves"}, {"refused", "need a person"}, {"invited", "not connected yet"}} {
		if n := o.ByStatus[status[0]]; n > 0 {
			count := fmt.Sprintf("  %*d  %-8s", len(strconv.Itoa(o.Connections)), n, status[0])
			out.Line(out.Paint(colourOf(status[0]), count) + "  " + status[1])
		}
	}
	if s := o.Shortest; s != nil {
		out.Say("The shortest life left is " + left(s.ExpiresAt) + ", of " + s.String() + ".")
	}
	out.Line("")
}

const shownNames = 5 // of one trouble; list --status has them all

func drawTroubles(out *screen.Pane, head string, troubles []trouble) {
	if len(troubles) > 0 {
		out.Line(out.Paint(screen.Bold, head))
	}
	for _, t := range troubles {
		names, more := t.Connections, ""
		if len(names) > shownNames {
			names, more = names[:shownNames], fmt.Sprintf(" and %d more", len(names)-shownNames)
		}
		out.Say(plural(len(t.Connections), "connection") + " of app " + t.App + ": " + t.Title + " (" + t.Code + ")")
		pairs := []string{"which", strings.Join(names, ", ") + more, "to do", commands(t.Action, t.App)}
		for _, name := range names {
			if url := t.ConsentURLs[name]; url != "" {
				pairs = append(pairs, "consent", name+" "+url)
			}
		}
		out.Pairs(pairs...)
		out.Line("")
	}
}

// sleep reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
