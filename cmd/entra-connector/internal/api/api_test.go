package api

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// The Region is that of the URL, whatever the profile says.
func TestRegion(t *testing.T) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"} {
		t.Setenv(name, value)
	}
	for url, region := range map[string]string{
		"https://abc.execute-api.eu-north-1.amazonaws.com/stage": "eu-north-1",
		"https://abc.execute-api.cn-north-1.amazonaws.com.cn":    "cn-north-1",
		"https://entra.example.com":                              "us-east-1",
	} {
		c, err := New(url, "", 1)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", url, nil)
		if err := c.sign(t.Context(), r, nil); err != nil || !strings.Contains(r.Header.Get("Authorization"), "/"+region+"/execute-api/") {
			t.Errorf("%s is signed %s, %v", url, r.Header.Get("Authorization"), err)
		}
	}
}
