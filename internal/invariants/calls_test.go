package invariants

import (
	"strings"
	"sync/atomic"
	"testing"

	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/stack/stacktest"
)

// Whatever AWS answers again and again, no request makes more than 40 calls, or goes on until its time is over.
func TestNoEndlessLoop(t *testing.T) {
	for _, op := range []string{"CreateSecret", "UpdateSecret", "TagResource", "RestoreSecret"} {
		for _, code := range []string{"ResourceExistsException", "ResourceNotFoundException", "InvalidRequestException"} {
			t.Run(op+" always answers "+code, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, false)
				for _, first := range []call{rotate, again, put, drop, refresh, refused, sweepAll, remove} {
					for _, scene := range scenes {
						w.reset(scene.setUp)
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

// Of two callers who create an app under one name at once, only one succeeds, unless both want the same app.
func TestOneAppByTwo(t *testing.T) {
	w := newWorld(t, false)
	for _, tt := range []struct {
		second string
		want   int
	}{
		{stacktest.Body("client_id", stacktest.OtherID), 409},
		{stacktest.Body(), 200},
	} {
		w.reset(nil)
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
