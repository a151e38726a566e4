package stack

import (
	"slices"
	"strings"
	"testing"

	"entra-connector/internal/awsidentity/ststest"
	"entra-connector/internal/secretstore/secretstoretest"
	"entra-connector/internal/signals/eventbridgetest"
)

// value is what a process with env sees: the last one.
func value(env []string, name string) (found string) {
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			found = rest
		}
	}
	return found
}

func TestEnvForTheStandIn(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONFIG_FILE", "HOME", "HTTPS_PROXY"} {
		t.Setenv(name, "the developer's own")
	}
	env := (&Stack{Secrets: new(secretstoretest.Server), STS: new(ststest.Server), Events: new(eventbridgetest.Server)}).env(Options{
		Secrets: secretstoretest.Options{Region: "eu-north-1"}, Env: []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER=http://127.0.0.1:1"},
	})
	for name, want := range map[string]string{
		"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "eu-north-1", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
		"HOME": "", "EVENT_BUS": "default", "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:1",
		"HTTPS_PROXY": "the developer's own", // Entra is not the stand-in
	} {
		if got := value(env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestEnvForOtherServices(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_LAMBDA_FUNCTION_NAME", "HOME", "https_proxy", "SSL_CERT_FILE", "GOFLAGS"} {
		t.Setenv(name, "the developer's own")
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	env := (&Stack{Authority: "https://login.example", SecretsEndpoint: "https://secrets.example"}).env(Options{})
	for name, want := range map[string]string{
		"AZURE_AUTHORITY_HOST": "https://login.example", "AWS_ENDPOINT_URL_SECRETS_MANAGER": "https://secrets.example",
		"AWS_PROFILE": "the developer's own", "HOME": "the developer's own", "https_proxy": "the developer's own",
		"SSL_CERT_FILE": "the developer's own", "AWS_LAMBDA_FUNCTION_NAME": "", "GOFLAGS": "", "AWS_ACCESS_KEY_ID": "",
		"EVENT_BUS": "", // nothing is published that nobody asked for
	} {
		if got := value(env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// Lambda's AWS_REGION would hide a profile's: it is taken away, not only left out.
	for _, want := range []string{"AWS_REGION=", "AWS_DEFAULT_REGION="} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is missing", want)
		}
	}
	t.Setenv("AWS_REGION", "eu-west-3")
	if got := value((&Stack{}).env(Options{}), "AWS_REGION"); got != "eu-west-3" {
		t.Errorf("AWS_REGION is %q", got)
	}
}
