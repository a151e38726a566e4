// Package setup builds what both functions share from their environment, which nothing else reads.
package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"

	"entra-connector/internal/awsidentity"
	"entra-connector/internal/secretstore"
	"entra-connector/internal/signals"
	"entra-connector/pkg/entra"
)

const (
	// awsTimeout bounds one try of an AWS call; the SDK makes up to three.
	awsTimeout = 5 * time.Second
	// awsConnections is enough for a sweep's workers and its listing, so that each keeps its
	// connection.
	awsConnections = 96
)

// Setup is what a function works with.
type Setup struct {
	Store   *secretstore.Store
	Entra   *entra.Client
	Window  time.Duration
	Log     *slog.Logger
	Metrics signals.Metrics
	Events  *signals.Events // nil unless there is an EVENT_BUS

	ConnectPage bool   // whether there is a page for customers
	ConnectURL  string // where it is, without /connect; empty: where the request came to
}

// New builds a Setup and logs which build is starting. The error names every variable that is
// wrong.
func New(ctx context.Context, lookup func(string) (string, bool)) (*Setup, error) {
	vars, err := read(lookup)
	if err != nil {
		return nil, err
	}
	aws, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(awsTimeout).WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = awsConnections
		})),
		config.WithAPIOptions([]func(*middleware.Stack) error{awsmiddleware.AddUserAgentKeyValue(product, version)}))
	if err != nil {
		return nil, errors.New("the AWS configuration cannot be read; check the AWS_ variables")
	}
	vars.entra.UserAgent = product + "/" + version
	vars.entra.Assertions = awsidentity.New(sts.NewFromConfig(aws), time.Now)
	s := &Setup{
		Store:  secretstore.New(secretsmanager.NewFromConfig(aws), vars.store),
		Entra:  entra.NewClient(vars.entra),
		Window: vars.window,

		ConnectPage: vars.connectPage,
		ConnectURL:  vars.connectURL,

		Log:     newLogger(os.Stdout, vars.level),
		Metrics: signals.Metrics{Out: os.Stdout, Function: lambdacontext.FunctionName, Now: time.Now},
	}
	if vars.bus != "" {
		s.Events = signals.NewEvents(eventbridge.NewFromConfig(aws), vars.bus, s.Log)
	}
	s.Log.Info("starting", "version", version, "commit", commit)
	return s, nil
}

type variables struct {
	store  secretstore.Config
	entra  entra.ClientConfig
	window time.Duration
	bus    string
	level  slog.Level

	connectPage bool
	connectURL  string
}

// A prefix is the first part of a secret's name, or several parts.
var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*$`)

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

// A bus is given by its name or its ARN, as PutEvents takes it.
var busPattern = regexp.MustCompile(`^(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus/)?[/._A-Za-z0-9-]+$`)

// read treats an empty variable as one that is not set, as the AWS SDK does: SAM can only override
// variables that the template declares.
func read(lookup func(string) (string, bool)) (variables, error) {
	var errs []error
	get := func(name, otherwise string, parse func(string) error) {
		value, _ := lookup(name)
		if value = cmp.Or(value, otherwise); value == "" {
			return
		}
		if err := parse(value); err != nil {
			errs = append(errs, fmt.Errorf("%s %w", name, err))
		}
	}

	var v variables
	get("SECRET_PREFIX", "entra", func(s string) error {
		v.store.Prefix = s
		if !prefixPattern.MatchString(s) || len(s) > 200 {
			return errors.New("must be at most 200 of A-Z, a-z, 0-9 and _+=.@-, in parts separated by /")
		}
		// Below another stack's prefix, such a part would make one stack's secrets look like the
		// other's.
		if parts := strings.Split(s, "/"); slices.Contains(parts, "apps") || slices.Contains(parts, "connections") {
			return errors.New("must not have a part named apps or connections")
		}
		return nil
	})
	get("REFRESH_WINDOW", "30m", func(s string) (err error) {
		v.window, err = time.ParseDuration(s)
		return must(err == nil && v.window > 0, "a Go duration above zero, such as 30m")
	})
	get("WRITES_PER_SECOND", "45", func(s string) (err error) {
		v.store.WritesPerSecond, err = strconv.ParseFloat(s, 64)
		return must(err == nil && v.store.WritesPerSecond >= 0 && !math.IsInf(v.store.WritesPerSecond, 0), "a number, 0 for no ceiling")
	})
	get("SECRET_TAGS", "", func(s string) (err error) {
		v.store.Tags, err = parseTags(s)
		return err
	})
	get("READER_ACCOUNTS", "", func(s string) error {
		v.store.Readers = strings.Split(s, ",")
		if slices.ContainsFunc(v.store.Readers, func(id string) bool { return !accountPattern.MatchString(id) }) {
			return errors.New("must be IDs of AWS accounts, with commas between them")
		}
		return nil
	})
	get("KMS_KEY_ID", "", func(s string) error {
		v.store.KMSKeyID = s
		return nil
	})
	get("RECOVERY_WINDOW_DAYS", "30", func(s string) (err error) {
		v.store.RecoveryDays, err = strconv.ParseInt(s, 10, 64)
		return must(err == nil && v.store.RecoveryDays >= 7 && v.store.RecoveryDays <= 30, "a number of days from 7 to 30")
	})
	insecure := false
	get("ALLOW_INSECURE_AUTHORITY", "", func(s string) (err error) {
		insecure, err = strconv.ParseBool(s)
		return must(err == nil, "true or false")
	})
	get("AZURE_AUTHORITY_HOST", "", func(s string) (err error) {
		v.entra.Authority, err = entra.ParseAuthority(s, insecure)
		return err
	})
	get("EVENT_BUS", "", func(s string) error {
		v.bus = s
		return must(busPattern.MatchString(s) && len(s) <= 1600, "the name or the ARN of an EventBridge bus")
	})
	get("CONNECT_PAGE", "false", func(s string) (err error) {
		if v.connectPage, err = strconv.ParseBool(s); err != nil {
			return errors.New("must be true or false")
		}
		return nil
	})
	get("CONNECT_URL", "", func(s string) (err error) {
		v.connectURL, err = entra.ParseAuthority(s, false)
		return err
	})
	get("LOG_LEVEL", "INFO", func(s string) error {
		return must(v.level.UnmarshalText([]byte(s)) == nil, "DEBUG, INFO, WARN or ERROR")
	})
	return v, errors.Join(errs...)
}

func must(ok bool, be string) error {
	if !ok {
		return errors.New("must be " + be)
	}
	return nil
}

// maxTags leaves room for the connector's own among the 50 that a secret can have.
const maxTags = 20

func parseTags(s string) (map[string]string, error) {
	// What AWS allows in a tag: a key of 1 to 127 characters, and a value of at most 255.
	pattern := regexp.MustCompile(`^([\p{L}\p{Z}\p{N}_.:/+@-]{1,127})=([\p{L}\p{Z}\p{N}_.:/=+@-]{0,255})$`)
	tags := make(map[string]string)
	for part := range strings.SplitSeq(s, ",") {
		m := pattern.FindStringSubmatch(part)
		switch {
		case m == nil:
			return nil, errors.New("must be key=value,key=value, with keys and values that AWS allows in a tag")
		case strings.HasPrefix(m[1], "aws:"), strings.HasPrefix(m[1], "entra-connector:"):
			return nil, errors.New("must not have a key of AWS or of the connector (aws:, entra-connector:)")
		}
		tags[m[1]] = m[2]
	}
	return tags, must(len(tags) <= maxTags, fmt.Sprintf("at most %d tags", maxTags))
}
