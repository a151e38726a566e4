package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"entra-connector/cmd/entra-connector/internal/api"
)

const (
	maxTries  = 5 // of a row whose failure passes
	maxWait   = 5 * time.Minute
	firstWait = time.Second // where the answer does not say how long; twice as long each time
	saveEvery = 5 * time.Second
	giveUp    = 20 // rows that fail before any works
	shownWhy  = 10 // reasons and lines; the file of results has them all
)

// importer is one run of import.
type importer struct {
	*program
	perSecond  float64
	credential credentialFlags

	header  []string
	rows    []*row
	results string         // the path of the file of results
	counts  map[string]int // rows by outcome

	client  *api.Client
	limiter *rate.Limiter
	pause   atomic.Int64 // Unix nanoseconds until which the API wants no request
}

func (p *program) addImport(root *cobra.Command) {
	im := &importer{program: p}
	cmd := p.add(root, "import FILE.csv", "Connect many tenants, one for each row of a file", cobra.ExactArgs(1), im.run)
	cmd.Long = `Connects a tenant for each row. The first line names the columns, which are
fields of POST /connections:
` + strings.Join(columns, ", ") + `.
An empty cell is a field left out. Secrets do not belong in the file: the app
exists, or its client_id stands there and its secret is asked for.

FILE.results.csv gets every row's outcome and reason. Run the same again after
Ctrl-C or a failure: rows that are done are not sent again.`
	cmd.ValidArgsFunction = cobra.FixedCompletions([]string{"csv"}, cobra.ShellCompDirectiveFilterFileExt)
	cmd.Flags().IntVar(&p.parallel, "parallel", 8, "at most this `number` of requests are under way at once")
	cmd.Flags().Float64Var(&im.perSecond, "rate", 10, "at most this `number` of requests begin in a second; 0 is no limit")
	im.credential.add(cmd)
}

func (im *importer) run(ctx context.Context, c *api.Client, args []string) error {
	if im.parallel < 1 || im.perSecond < 0 {
		return usage("--parallel must be 1 at least, and --rate not below 0")
	}
	if err := im.read(args[0]); err != nil {
		return err
	}
	im.client, im.limiter = c, rate.NewLimiter(cmp.Or(rate.Limit(im.perSecond), rate.Inf), 1)
	if err := im.createApps(ctx); err != nil { // it also shows that the API can be called
		return err
	}
	if err := im.save(); err != nil { // better now than after the work
		return err
	}
	stopped := im.sendAll(ctx)
	if err := errors.Join(im.save(), im.summarise()); err != nil {
		return err
	}
	if stopped != nil {
		im.explain("stopped early", stopped)
	}
	if im.counts[failed]+im.counts[notTried] > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// createApps creates the apps that rows describe and that do not exist.
func (im *importer) createApps(ctx context.Context) error {
	stored, err := im.client.Apps(ctx)
	if err != nil {
		return err
	}
	apps := make(map[string]*api.App)
	for i, a := range stored {
		apps[a.Name] = &stored[i]
	}
	var missing []string
	for _, r := range im.rows {
		clientID, cloud := r.Fields["client_id"], r.Fields["cloud"]
		app := apps[r.app()]
		if app == nil {
			app = &api.App{ClientID: clientID, Cloud: cloud}
			apps[r.app()], missing = app, append(missing, r.app())
		}
		if !strings.EqualFold(cmp.Or(clientID, app.ClientID), app.ClientID) || cmp.Or(cloud, app.Cloud) != app.Cloud {
			return usage("line %d: app %s has another client_id or cloud", r.Line, r.app())
		}
	}
	if len(missing) > 1 && !im.credential.asks() {
		return usage("the file has several new apps, %s: give no credential, and be asked for each", strings.Join(missing, ", "))
	}
	for _, name := range missing {
		if apps[name].ClientID == "" {
			return usage("there is no app %s: create it with entra-connector app put %[1]s, or give its client_id in the file", name)
		}
		credential, err := im.credential.read(ctx, im.program, name)
		if err != nil {
			return err
		}
		with(credential, "client_id", apps[name].ClientID, "cloud", apps[name].Cloud)
		if _, err := im.client.Call(ctx, "PUT", "/apps/"+name, nil, credential, nil); err != nil {
			return err
		}
	}
	return nil
}

// task is a row on its way.
type task struct {
	*row
	try  int    // how often it was sent before
	last result // of that
}

// sendAll sends every row that is not done, in their order, and returns why it stopped early, if it
// did.
func (im *importer) sendAll(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	queue, answers := make(chan task), make(chan task)
	defer close(queue)
	work := func() {
		for t := range queue {
			wait, err := im.send(ctx, &t)
			if err != nil {
				stop(err)
			}
			if wait == 0 {
				answers <- t
				continue
			}
			go func() { // others go on meanwhile
				sleep(ctx, wait)
				queue <- t
			}()
		}
	}
	for range im.parallel {
		go work()
	}
	go func() {
		for _, r := range im.rows {
			if !r.done() {
				queue <- task{row: r, last: r.result}
			}
		}
	}()
	todo := len(im.rows) - im.counts[connected] - im.counts[known]
	answered, start, saved := 0, time.Now(), time.Now()
	paint := time.NewTicker(200 * time.Millisecond)
	defer paint.Stop()
	for answered < todo {
		select {
		case a := <-answers:
			answered++
			im.counts[a.Outcome]--
			im.counts[a.last.Outcome]++
			a.row.result = a.last
			if im.counts[failed] == giveUp && im.counts[connected]+im.counts[known] == 0 {
				stop(fmt.Errorf("the first %d rows all failed", giveUp))
			}
			continue
		case <-paint.C:
		}
		if time.Since(saved) > saveEvery {
			if err := im.save(); err != nil {
				stop(err)
			}
			saved = time.Now()
		}
		then := "stopping, once what is under way is answered"
		if each := time.Since(start) / time.Duration(max(answered, 1)); ctx.Err() == nil {
			then = left(time.Now().Add(each*time.Duration(todo-answered)+time.Second)) + " to go"
		}
		im.err.Progress(fmt.Sprintf("%d of %s: %d connected, %d failed; %s", answered, plural(todo, "row"), im.counts[connected], im.counts[failed], then))
	}
	im.err.Progress("")
	return context.Cause(ctx)
}

// send sends a row once, and returns how long to wait before it is sent again, 0 for not again. The
// error is one that every row would meet.
func (im *importer) send(ctx context.Context, t *task) (time.Duration, error) {
	status, err := im.post(ctx, t.row)
	e := (*api.Error)(nil)
	switch {
	case err == nil && status == 201:
		t.last = result{Outcome: connected, Status: status}
		return 0, nil
	case err == nil:
		t.last = result{Outcome: known, Status: status}
		return 0, nil
	case !errors.As(err, &e): // nothing was sent
		return 0, err
	}
	t.last = result{failed, e.Status, e.Code, reason(e), e.RequestID}
	wait := max(e.RetryAfter, time.Duration((0.5+rand.Float64())*float64(firstWait<<t.try)))
	t.try++
	switch {
	case e.Status == 401 || e.Status == 403:
		return 0, err
	case !e.Passes() || e.Status == 500 && e.Type != "" || t.try == maxTries || wait > maxWait:
		return 0, nil
	case e.Status == 429: // that is for everybody
		im.pause.Store(time.Now().Add(wait).UnixNano())
	}
	return wait, nil
}

// post sends a row when it is its turn. What is sent is not interrupted, so that its outcome is
// known.
func (im *importer) post(ctx context.Context, r *row) (int, error) {
	for {
		if err := im.limiter.Wait(ctx); err != nil {
			return 0, ctx.Err() // not the cause, which is another row's
		}
		wait := time.Until(time.Unix(0, im.pause.Load()))
		if wait <= 0 {
			break
		}
		sleep(ctx, wait)
	}
	fields := maps.Clone(r.Fields)
	delete(fields, "client_id") // of the app, which is there by now
	delete(fields, "cloud")
	return im.client.Call(context.WithoutCancel(ctx), "POST", "/connections", nil, fields, nil)
}

// reason is all that a person needs of an error, in one line.
func reason(e *api.Error) string {
	parts := []string{e.Error()}
	for _, field := range e.Errors {
		parts = append(parts, field.Field+" "+field.Detail+";")
	}
	return strings.TrimSpace(strings.Join(append(parts, e.Action), " "))
}

func (im *importer) summarise() error {
	why := make(map[string][]string)
	for _, r := range im.rows {
		if r.Reason != "" {
			why[r.Reason] = append(why[r.Reason], fmt.Sprint(r.Line))
		}
	}
	return im.print(map[string]any{"outcomes": im.counts, "results_file": im.results, "results": im.rows}, func() {
		im.out.Say(fmt.Sprintf("%s: %d connected, %d known, %d failed, %d not tried. Each is in %s.", plural(len(im.rows), "row"),
			im.counts[connected], im.counts[known], im.counts[failed], im.counts[notTried], im.results))
		reasons := slices.SortedFunc(maps.Keys(why), func(a, b string) int { return len(why[b]) - len(why[a]) })
		for _, reason := range reasons[:min(len(reasons), shownWhy)] {
			where := strings.Join(why[reason][:min(len(why[reason]), shownWhy)], ", ")
			im.out.Pairs(plural(len(why[reason]), "row"), "line "+where, "reason", commands(reason, ""))
		}
	})
}
