package invariants

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
)

// Whatever AWS answers again and again, no request makes more than 40 calls, or goes on until its
// time is over.
func TestNoEndlessLoop(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"CreateSecret", "UpdateSecret", "TagResource", "RestoreSecret"} {
		for _, code := range []string{"ResourceExistsException", "ResourceNotFoundException", "InvalidRequestException"} {
			t.Run(op+" always answers "+code, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, false)
				for _, first := range []call{rotate, again, put, drop, refresh, refused, sweepAll, remove} {
					for _, scene := range scenes {
						w.reset(scene.setUp, 0)
						w.Secrets.Fail(secretstoretest.Fault{Op: op, Error: code})
						w.Secrets.ResetCalls()
						status := first.do(w, w.Connector)
						most := 40
						if first.name == sweepAll.name {
							most = 42 // it also lists, and reads the app
						}
						if n := len(w.Secrets.Calls()); n > most {
							t.Errorf("%s on %s makes %d calls to AWS", first.name, scene.name, n)
						}
						if status == 504 {
							t.Errorf("%s on %s goes on until its time is over", first.name, scene.name)
						}
						w.Secrets.ClearFaults()
					}
				}
			})
		}
	}
}

// Of two callers who create an app under one name at once, only one succeeds, unless both want the
// same app.
func TestOneAppByTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, tt := range []struct {
		second string
		want   int
	}{
		{stacktest.Body("client_id", stacktest.OtherID), 409},
		{stacktest.Body(), 200},
	} {
		w.reset(nil, 0)
		var once atomic.Bool
		w.Secrets.Before(func(op, _ string) {
			if op == "CreateSecret" && once.CompareAndSwap(false, true) {
				w.twin.Call("POST", "/connections", tt.second).Want(t, 201)
			}
		})
		w.Call("POST", "/connections", stacktest.Body()).Want(t, tt.want)
		w.Secrets.Before(nil)
		if app := w.Call("GET", "/apps/default", "").Want(t, 200).JSON(t); !strings.Contains(tt.second, stacktest.Text(app, "client_id")) {
			t.Errorf("the app is %v, want that of %s", app, tt.second)
		}
		w.Call("POST", "/connections/default/"+stacktest.TenantA+"/refresh", "").Want(t, 200)
	}
}

// An app with connections is replaced only once it is proved, even if the connections are seconds
// old and the list still shows others. Connections that are gone prove nothing.
func TestProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	replace := func(want int) {
		t.Helper()
		w.twin.Call("PUT", "/apps/default", stacktest.AppBody("client_id", disabledApp)).Want(t, want)
	}
	provision := func(tenant, name string) {
		t.Helper()
		w.twin.Call("POST", "/connections", stacktest.Object("tenant_id", tenant, "connection", name)).Want(t, 201)
	}
	w.reset([]call{provide}, 0)
	remove.do(w, w.twin)
	replace(200)

	w.reset([]call{provide}, 0)
	remove.do(w, w.twin)
	provision(stacktest.TenantB, "b")
	w.refuseOnce(stacktest.TenantB)
	w.twin.Call("PUT", "/apps/default", stacktest.AppBody("client_secret", stacktest.NewSecret)).Want(t, 422)

	// Then an app has so many that it does not name the last.
	w.reset([]call{put}, 0)
	for i := range 20 {
		name := fmt.Sprint("x", i)
		provision(stacktest.TenantA, name)
		w.twin.Call("DELETE", "/connections/default/"+name, "").Want(t, 204)
	}
	provision(stacktest.TenantA, "last")
	replace(503)
	w.pass(later)
	replace(422)
}

// AWS refuses to delete, and the connector was interrupted in between. The connection works again
// once the same call has been made again.
func TestRefusedDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.reset([]call{provide}, 0)
	w.Secrets.Fail(secretstoretest.Fault{Op: "TagResource", Times: 1, Delay: 1}) // answered as usual
	w.Secrets.Fail(secretstoretest.Fault{Op: "TagResource", Error: "InternalServiceError"})
	w.Secrets.Fail(secretstoretest.Fault{Op: "DeleteSecret", Error: "AccessDeniedException"})
	if status := remove.do(w, w.Connector); status < 400 || w.get().state() != unfinished {
		t.Fatalf("%d, %+v", status, w.get())
	}
	w.Secrets.ClearFaults()
	w.Secrets.Fail(secretstoretest.Fault{Op: "DeleteSecret", Error: "AccessDeniedException"})
	w.minute()
	if status := remove.do(w, w.twin); status < 400 || w.get().Status != "ok" {
		t.Errorf("%d, %+v", status, w.get())
	}
}

// A claim restores what a person deleted. If the owner reads the connection at that moment, and
// writes before the claim does, the claim gives way.
func TestClaimGivesWay(t *testing.T) {
	t.Parallel()
	for _, writes := range []bool{false, true} {
		w := newWorld(t, writes)
		w.reset([]call{provide, erase}, 0)
		read, mayWrite, done := make(chan bool), make(chan bool), make(chan bool)
		var restored atomic.Bool
		var updates atomic.Int32
		status := 0
		w.Secrets.Before(func(op, secret string) {
			switch {
			case secret != connectionSecret:
			case op == "TagResource" && restored.CompareAndSwap(false, true):
				go func() {
					status = refresh.do(w, w.twin)
					close(done)
				}()
				<-read
			case op == "UpdateSecret":
				switch updates.Add(1) {
				case 1: // the owner's
					close(read)
					<-mayWrite
				case 2: // the claim's
					close(mayWrite)
					<-done
				}
			}
		})
		answer := other.do(w, w.Connector)
		w.Secrets.Before(nil)
		fail := w.failer(fmt.Sprintf("refused updates write their description: %t, the claim answers %d, the owner's refresh %d", writes, answer, status))
		if answer != 409 || status != 200 || w.consistent(fail).TenantID != stacktest.TenantA {
			fail("the connection is %+v", w.get())
		}
		w.settled(fail)
	}
}
