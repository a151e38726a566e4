package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entra-connector/internal/stack"
	"entra-connector/internal/stack/stacktest"
	"entra-connector/pkg/entra/entratest"
)

// results reads the file of results, by the number of the line in the file, from 2.
func (c *command) results(name string) map[int]map[string]string {
	c.t.Helper()
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		c.t.Fatal(err)
	}
	rows := make(map[int]map[string]string)
	for i, record := range records[1:] {
		rows[i+2] = make(map[string]string)
		for j, cell := range record {
			rows[i+2][records[0][j]] = cell
		}
	}
	return rows
}

func TestImport(t *testing.T) {
	connector, c := start(t, stack.Options{})
	file := "\ufefftenant_id;connection;service;client_id;app\r\n" // as Excel saves it
	for i := range 12 {
		tenant := fmt.Sprintf("dddddddd-0000-4000-8000-%012d", i)
		connector.Entra.AddTenant(entratest.Tenant{ID: tenant})
		connector.Entra.Consent(tenant, stacktest.ClientID, "User.Read.All")
		file += fmt.Sprintf("%s;customer-%d;microsoft-graph;%s;\r\n", tenant, i, stacktest.ClientID)
	}
	c.write("customers.csv", file+"nobody.example;;;;\r\ncommon;x;;;default\r\n")
	c.run("", "import", "customers.csv").want(2, "--secret-stdin") // it is asked for, and there is nobody
	imported := c.run(stacktest.Secret, "import", "customers.csv", "--secret-stdin").
		want(1, "14 rows: 12 connected, 0 known, 2 failed, 0 not tried", "customers.results.csv", "line 14", "AADSTS90002", "line 15", "must name the customer's own tenant")
	if imported.err != "" {
		t.Errorf("on standard error, which is no terminal, is %q", imported.err)
	}
	rows := c.results("customers.results.csv")
	if r := rows[2]; r["outcome"] != "connected" || r["status"] != "201" || r["connection"] != "customer-0" || r["reason"] != "" {
		t.Errorf("the first row's result is %v", r)
	}
	if r := rows[14]; len(rows) != 14 || r["outcome"] != "failed" || r["status"] != "422" || r["code"] != "AADSTS90002" || r["request_id"] == "" {
		t.Errorf("of %d results the second to last is %v", len(rows), r)
	}
	before := len(connector.Entra.Requests())
	again := c.run("", "import", "customers.csv", "-o", "json").want(1)
	got := decode[struct {
		Outcomes map[string]int
		Results  []row
	}](again)
	if got.Outcomes["connected"] != 12 || got.Outcomes["failed"] != 2 || got.Results[12].Line != 14 || got.Results[12].Code != "AADSTS90002" {
		t.Errorf("the second run says %s", again.out)
	}
	for _, r := range connector.Entra.Requests()[before:] {
		if r.Tenant != "nobody.example" {
			t.Errorf("the second run asks for %s again", r.Tenant)
		}
	}
	// Without the results it connects what is connected.
	if err := os.Remove(filepath.Join(c.dir, "customers.results.csv")); err != nil {
		t.Fatal(err)
	}
	c.run("", "import", "customers.csv", "--rate", "0").want(1, "0 connected, 12 known, 2 failed")
}

func TestImportRefusesFiles(t *testing.T) {
	posted := false
	_, c := record(t, func(w http.ResponseWriter, r *http.Request) {
		posted = posted || r.Method != "GET"
		fmt.Fprint(w, `{"apps":[{"app":"there","client_id":"ONE","cloud":"public"}]}`)
	})
	for i, test := range []struct{ file, want string }{
		{"tenant_id,client_secret\nx,c4nary\n", "secrets do not belong"},
		{"tenant_id,certificate\nx,c4nary\n", "secrets do not belong"},
		{"tenant_id,name\nx,y\n", `"name"`},
		{"tenant_id,app,app\nx,y,z\n", `"app"`},
		{"connection\nx\n", "tenant_id"},
		{"", "tenant_id"},
		{"tenant_id,app\nx\n", "wrong number of fields"},
		{"tenant_id\n\xe9\n", "UTF-8"},
		{"tenant_id,app\nX,there\nx,there\n", "lines 2 and 3 are the same connection, there/x"},
		{"tenant_id,app,client_id\nx,there,one\ny,there,two\n", "line 3: app there has another client_id"},
		{"tenant_id,app,cloud\nx,there,china\n", "line 2: app there has another"},
		{"tenant_id,app\nx,missing\n", "entra-connector app put missing"},
		{"tenant_id,app,client_id\nx,a,one\ny,b,two\n", "several new apps, a, b"},
	} {
		name := fmt.Sprint(i, ".csv")
		c.write(name, test.file)
		c.run("c4nary", "import", name, "--secret-stdin").want(2, test.want)
		if _, err := os.Stat(filepath.Join(c.dir, fmt.Sprint(i, ".results.csv"))); err == nil {
			t.Errorf("%q leaves results", test.file)
		}
	}
	c.write("mine.csv", "tenant_id,app\nx,there\n")
	c.write("mine.results.csv", "tenant_id,something else\n")
	c.run("", "import", "mine.csv").want(2, "mine.results.csv is in the way")
	if posted {
		t.Error("something was sent")
	}
}

// importAPI has the app default, and answers each row by its tenant and by how often that was sent.
func importAPI(t *testing.T, rows int, answer func(w http.ResponseWriter, tenant string, times int)) *command {
	var mu sync.Mutex
	sent := make(map[string]int)
	_, c := record(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			fmt.Fprint(w, `{"apps":[{"app":"default"}]}`)
			return
		}
		var body struct {
			Tenant string `json:"tenant_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		sent[body.Tenant]++
		times := sent[body.Tenant]
		mu.Unlock()
		answer(w, body.Tenant, times)
	})
	file := "tenant_id\n"
	for i := range rows {
		file += fmt.Sprintf("t%d\n", i)
	}
	c.write("a.csv", file)
	return c
}

func fail(w http.ResponseWriter, status int, retryAfter string) {
	w.Header().Set("Retry-After", retryAfter)
	w.WriteHeader(status)
	fmt.Fprint(w, `{"type":"t","title":"Failed","detail":"It failed."}`)
}

func TestImportHonoursRetryAfter(t *testing.T) {
	var until, tooSoon, afterAll atomic.Int64
	c := importAPI(t, 30, func(w http.ResponseWriter, tenant string, times int) {
		now := time.Now().UnixNano()
		switch {
		case tenant == "t3" && times == 1: // API Gateway is for everybody
			until.Store(now + int64(2*time.Second))
			fail(w, 429, "2")
		case tenant == "t20" && times == 1: // Entra is for one
			afterAll.Store(now + int64(time.Second))
			fail(w, 503, "1")
		case tenant == "t20" && now < afterAll.Load():
			t.Error("Retry-After of a 503 was not honoured")
		case tenant == "t21":
			fail(w, 503, "3600") // nobody waits for that
		case tenant == "t22":
			if times > 1 {
				t.Error("a failure of the API's own was tried again")
			}
			fail(w, 500, "0")
		default:
			w.WriteHeader(201)
		}
		if tenant != "t3" && now < until.Load() && now > until.Load()-int64(1500*time.Millisecond) {
			tooSoon.Add(1)
		}
	})
	c.run("", "import", "a.csv", "--rate", "0", "--parallel", "4").want(1, "28 connected", "2 failed", "It failed.")
	if tooSoon.Load() > 0 {
		t.Errorf("%d requests came during the two seconds that a 429 asked for", tooSoon.Load())
	}
	if r := c.results("a.results.csv")[23]; r["status"] != "503" {
		t.Errorf("a row that has to wait for an hour is %v", r)
	}
}

func TestImportIsBounded(t *testing.T) {
	var now, most, last atomic.Int64
	c := importAPI(t, 25, func(w http.ResponseWriter, _ string, _ int) {
		last.Store(max(last.Load(), time.Now().UnixNano()))
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(30 * time.Millisecond) // as long as the others need to arrive
		now.Add(-1)
		w.WriteHeader(201)
	})
	c.run("", "import", "a.csv", "--parallel", "3", "--rate", "0").want(0, "25 connected")
	if most.Load() > 3 {
		t.Errorf("%d requests were under way at once", most.Load())
	}
	if err := os.Remove(filepath.Join(c.dir, "a.results.csv")); err != nil {
		t.Fatal(err)
	}
	start := time.Now().UnixNano()
	c.run("", "import", "a.csv", "--parallel", "25", "--rate", "50").want(0, "25 connected")
	if took := time.Duration(last.Load() - start); took < 24*time.Second/50 {
		t.Errorf("25 requests at 50 a second came within %v", took)
	}
}

func TestImportStopsWhereAllWouldFail(t *testing.T) {
	var status atomic.Int64
	c := importAPI(t, 60, func(w http.ResponseWriter, _ string, _ int) { fail(w, int(status.Load()), "0") })
	for _, test := range []struct {
		status int64
		failed int
		why    string
	}{{403, 1, "stopped early: It failed."}, {422, 20, "the first 20 rows all failed"}} {
		status.Store(test.status)
		c.run("", "import", "a.csv", "--parallel", "1", "--rate", "0").want(1, test.why)
		failed := 0
		for _, r := range c.results("a.results.csv") {
			if r["outcome"] == "failed" {
				failed++
			}
		}
		if failed < test.failed || failed > test.failed+5 { // some may have been on their way
			t.Errorf("with status %d, %d of 60 rows failed", test.status, failed)
		}
	}
}
