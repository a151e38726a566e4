package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/spf13/cobra"

	"entra-connector/cmd/entra-connector/internal/api"
	"entra-connector/internal/awserr"
)

// Exit codes where the program does not run at all, as of env(1).
const (
	exitCannotRun = 126
	exitNoProgram = 127
)

func (p *program) addExec(root *cobra.Command) {
	var prefix string
	cmd := &cobra.Command{
		Use:   "exec APP/CONNECTION -- COMMAND…",
		Short: "Run a program with a connection's six values as variables",
		Long: `Reads the connection's secret in AWS Secrets Manager, not the API, and becomes
the program, with the six PAN_SEC_MICROSOFT_ENTRA_ variables set. They stay as
they are: a program that runs for longer than the token lasts must read the
secret itself.`,
		Example: "  entra-connector exec default/contoso -- python3 report.py",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.started = true
			if cmd.ArgsLenAtDash() != 1 {
				return usage("put -- between the connection and the program")
			}
			if err := names(connectionName, 1)(cmd, args[:1]); err != nil {
				return usage("%v", err)
			}
			program, err := exec.LookPath(args[1])
			if err != nil {
				return &exitError{exitNoProgram, fmt.Sprintf("there is no program %q", args[1])}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
			defer cancel()
			values, err := readConnection(ctx, cmp.Or(prefix, os.Getenv("SECRET_PREFIX"), "entra"), args[0], time.Now())
			if err != nil {
				return err
			}
			env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
				name, _, _ := strings.Cut(variable, "=")
				return slices.Contains(six, name)
			})
			for name, value := range values {
				env = append(env, name+"="+value)
			}
			// The program takes this process over: its signals, its exit code.
			signal.Reset()
			return &exitError{exitCannotRun, fmt.Sprintf("%s cannot be run: %v", program, syscall.Exec(program, args[1:], env))}
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "first `part` of the secrets' names (default $SECRET_PREFIX, or entra)")
	root.AddCommand(cmd)
}

const prefixSix = "PAN_SEC_MICROSOFT_ENTRA_"

// six are the values of a connection's secret.
var six = []string{prefixSix + "TOKEN_TYPE", prefixSix + "EXPIRES_AT", prefixSix + "EXPIRES_IN",
	prefixSix + "EXT_EXPIRES_IN", prefixSix + "ACCESS_TOKEN", prefixSix + "TENANT_ID"}

// readConnection reads the six values of app/connection. It hands out no token that has expired.
func readConnection(ctx context.Context, prefix, connection string, now time.Time) (map[string]string, error) {
	name := prefix + "/connections/" + connection
	cfg, err := api.AWS(ctx, standIn()...)
	if err == nil && cfg.Region == "" {
		err = api.ErrNoRegion
	}
	if err != nil {
		return nil, err
	}
	secret, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if ctx.Err() == context.Canceled {
		return nil, ctx.Err()
	} else if err != nil {
		return nil, unread(name, err)
	}
	var values map[string]string
	err = json.Unmarshal([]byte(aws.ToString(secret.SecretString)), &values)
	expires, notTime := strconv.ParseInt(values[prefixSix+"EXPIRES_AT"], 10, 64)
	wrong := func(key string) bool { return values[key] == "" || strings.ContainsRune(values[key], 0) }
	if err != nil || notTime != nil || len(values) != len(six) || slices.ContainsFunc(six, wrong) {
		return nil, fmt.Errorf("secret %s does not hold the six values: see entra-connector show %s", name, connection)
	}
	if at := time.Unix(expires, 0); !at.After(now) {
		return nil, fmt.Errorf("the token of %s expired at %s: the connector is behind. See entra-connector show %[1]s", connection, at.UTC().Format(time.RFC3339))
	}
	return values, nil
}

// unread says why a secret could not be read, without the SDK's text, which names accounts and
// roles.
func unread(name string, err error) error {
	switch code := awserr.Code(err); {
	case code == "ResourceNotFoundException":
		return &exitError{exitRefused, "there is no secret " + name + " in this account and Region, or it has no value yet: " +
			"check the connection's name, --prefix, AWS_PROFILE and AWS_REGION"}
	case code == "InvalidRequestException":
		return &exitError{exitRefused, "secret " + name + " has been deleted"}
	case code == "AccessDeniedException" || code == "DecryptionFailure":
		return &exitError{exitRefused, "reading secret " + name + " is not permitted (" + code + "): attach the policy of the stack's output " +
			"IntegrationPolicyArn to who `aws sts get-caller-identity` says you are, and let the secret's KMS key allow its use"}
	case awserr.Temporary(err):
		return &exitError{exitPasses, "Secrets Manager did not answer (" + code + "): try again"}
	default:
		return &exitError{exitRefused, "Secrets Manager did not show secret " + name + " (" + code + ")"}
	}
}

// standIn are the settings for a stand-in on this machine, where credentials have no business.
func standIn() []func(*config.LoadOptions) error {
	u, err := url.Parse(cmp.Or(os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER"), os.Getenv("AWS_ENDPOINT_URL")))
	if err != nil || !api.Loopback(u) {
		return nil
	}
	return []func(*config.LoadOptions) error{config.WithDefaultRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("local", "local", ""))}
}
