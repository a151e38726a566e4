package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What the test and the command both know.
const (
	accessKey    = "AKIDEXAMPLE"
	secretKey    = "c4nary/key+of=AWS"
	sessionToken = "c4nary-session-token"
)

// signature is Signature Version 4 for an HTTP API, by
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html,
// without the SDK that the command signs with.
func signature(r *http.Request, body []byte, region string, signed []string) string {
	digest := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	query := strings.Split(r.URL.RawQuery, "&") // as it was sent: it is encoded and must be sorted
	slices.Sort(query)
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + strings.Join(query, "&") + "\n"
	for _, name := range signed {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		canonical += name + ":" + value + "\n"
	}
	canonical += "\n" + strings.Join(signed, ";") + "\n" + digest(body)
	date := r.Header.Get("X-Amz-Date")
	key := []byte("AWS4" + secretKey)
	for _, part := range []string{date[:8], region, "execute-api", "aws4_request",
		"AWS4-HMAC-SHA256\n" + date + "\n" + date[:8] + "/" + region + "/execute-api/aws4_request\n" + digest([]byte(canonical))} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func TestSignature(t *testing.T) {
	const region = "eu-north-1"
	var mu sync.Mutex
	var queries []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		queries = append(queries, r.URL.RawQuery)
		mu.Unlock()
		var credential, names, sent string
		_, err := fmt.Sscanf(strings.ReplaceAll(r.Header.Get("Authorization"), ",", ""),
			"AWS4-HMAC-SHA256 Credential="+accessKey+"/%s SignedHeaders=%s Signature=%s", &credential, &names, &sent)
		signed := strings.Split(names, ";")
		for _, name := range []string{"host", "x-amz-date", "x-amz-security-token"} {
			if !slices.Contains(signed, name) {
				t.Errorf("%s is not signed in %q", name, names)
			}
		}
		if want := signature(r, body, region, signed); err != nil || sent != want || r.Header.Get("X-Amz-Security-Token") != sessionToken {
			t.Errorf("%s %s is signed %q, %v; want %s", r.Method, r.URL, r.Header.Get("Authorization"), err, want)
			w.WriteHeader(http.StatusForbidden)
		}
		switch {
		case r.Method == "GET" && r.URL.Query().Get("cursor") == "":
			fmt.Fprint(w, `{"connections":[{"app":"a","connection":"1","status":"ok"}],"next":"z+y/x= %&é"}`)
		case r.Method == "GET":
			fmt.Fprint(w, `{"connections":[{"app":"a","connection":"2","status":"ok"}]}`)
		default:
			fmt.Fprint(w, `{"app":"a","connection":"é","status":"ok"}`)
		}
	}))
	defer server.Close()
	asked := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(queries)
	}
	c := newCommand(t, server.URL+"/base/path/")
	c.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	c.env = append(c.env, "SSL_CERT_FILE="+filepath.Join(c.dir, "ca.pem"))

	c.run("", "list").want(1, "no AWS credentials", "aws sts get-caller-identity")
	c.env = append(c.env, "AWS_PROFILE=nobody")
	c.run("", "list").want(1, `no AWS profile "nobody"`)
	c.env = append(c.env, "AWS_PROFILE=", "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey, "AWS_SESSION_TOKEN="+sessionToken)
	c.run("", "list").want(1, "AWS_REGION")
	if sent := asked(); len(sent) > 0 {
		t.Errorf("requests were sent unsigned: %q", sent)
	}
	c.env = append(c.env, "AWS_REGION="+region)
	c.run("", "list", "--app", "a").want(0, "a/1", "a/2")
	if want := []string{"app=a", "app=a&cursor=z%2By%2Fx%3D%20%25%26%C3%A9"}; !slices.Equal(asked(), want) {
		t.Errorf("the queries are %q, want %q", asked(), want)
	}
	c.run("", "connect", "contoso.com", "--name", "é").want(0)
	c.run("", "delete", "a/b", "-y").want(0)
}
