# "make" lists the targets. CI runs these targets and nothing else.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK    := github.com/kisielk/errcheck@v1.30.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
ACTIONLINT  := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

TESTFLAGS ?=
FUZZTIME  ?= 10s
SHARE     ?= 1
SEED      ?= 1
STEPS     ?= 3000

# What a function says of itself. Where git is missing, as in SAM's copy of the source, these fall
# back to "dev" and "unknown".
VERSION ?= $(or $(patsubst v%,%,$(shell git describe --tags --dirty 2>/dev/null)),dev)
COMMIT  ?= $(or $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null),unknown)

# The product, and modules of their own for what it must not depend on: Microsoft's libraries, and one
# that plots.
MODULES := . pkg/entra/entratest/msal pkg/entratoken/azuretoken internal/bench internal/browser

# Only the race detector needs a C compiler.
export CGO_ENABLED := 0

# Every go command here compiles with the flags of the deployed functions, so that no package is
# compiled twice. lambda.norpc drops the RPC of the retired go1.x runtime. There is no VCS stamp,
# because git may not trust the folder.
export GOFLAGS := $(shell go env GOFLAGS 2>/dev/null) -buildvcs=false -trimpath -tags=lambda.norpc

SETUP    := entra-connector/internal/setup
GO_BUILD  = go build -ldflags "-s -w $(foreach package,$(SETUP) main,-X $(package).version=$(VERSION) -X $(package).commit=$(COMMIT))"

.DEFAULT_GOAL := help
.PHONY: help needs-go build build/local demo local test invariants check fuzz e2e clients bench release publish clean \
	build-ProvisionFunction build-RefreshFunction build-ConnectFunction

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

needs-go:
	@why=$$(go list -m 2>&1) || { \
		echo "This needs Go $$(sed -n 's/^go //p' go.mod) or newer, the version that go.mod names (https://go.dev/dl/):"; \
		echo "$$why"; exit 1; } >&2

build: needs-go ## build the functions and the command, build/entra-connector, for this machine or GOOS and GOARCH
	@echo 'Building the functions and the command. The first time this takes a minute or two.'
	@$(GO_BUILD) -o build/provision/bootstrap ./functions/provision
	@$(GO_BUILD) -o build/refresh/bootstrap ./functions/refresh
	@$(GO_BUILD) -o build/connect/bootstrap ./functions/connect
	@$(GO_BUILD) -o build/entra-connector ./cmd/entra-connector

build/local: needs-go # for this machine, even if GOARCH names another
	@echo 'Building the stand-ins for Entra and AWS.'
	@env -u GOOS -u GOARCH $(GO_BUILD) -o $@ ./cmd/local

demo: build build/local ## show the connector at work on this machine, with stand-ins for Entra and AWS
	@build/local demo$(if $(V), -v)

# This is not "go run", which reports an error when Ctrl-C ends it.
local: build build/local ## run the same on http://127.0.0.1:3000 until Ctrl-C; ADDR=, EVERY=, DATA=, V=1
	@build/local serve -connect build/connect/bootstrap$(if $(ADDR), -addr '$(ADDR)')$(if $(EVERY), -every '$(EVERY)')$(if $(DATA), -data '$(DATA)')$(if $(V), -v)

test: needs-go ## run the tests, with the race detector if there is a C compiler
	@echo 'Testing. The first time it takes some minutes to compile everything.'
	@if env -u CGO_ENABLED go test -race -run '^$$' sort >/dev/null 2>&1; then \
		race=-race; unset CGO_ENABLED; \
	else \
		race=; echo 'The race detector is off: it needs a C compiler.'; \
	fi; \
	for module in $(MODULES); do \
		(set -x; cd $$module && go test $$race -shuffle=on $(TESTFLAGS) ./...) || exit; \
	done

invariants: needs-go ## try callers in every order, and interrupt every call: 15 minutes; SHARE=1, SEED=1, STEPS=3000
	go test ./internal/invariants -v -timeout 4h -share=$(SHARE) -seed=$(SEED) -steps=$(STEPS)

# Errors of test support need not be checked.
UNCHECKED := /(cmd/local|internal/bench|internal/.*test|pkg/entra/entratest)$$

check: needs-go ## check format, code, modules, workflows, links and known vulnerabilities; change nothing
	@unformatted=$$(gofmt -l api cmd functions internal pkg); test -z "$$unformatted" || \
		{ echo "gofmt -w would change:"; echo "$$unformatted"; exit 1; }
	@for module in $(MODULES); do \
		(set -x; cd $$module && go vet ./... && go mod tidy -diff && go run $(STATICCHECK) ./...) || exit; \
	done
	go run $(ERRCHECK) -ignoretests -exclude scripts/errcheck.txt $$(go list ./... | grep -Ev '$(UNCHECKED)')
	go run $(ACTIONLINT)
	scripts/links.sh *.md docs/*.md
	scripts/govulncheck.sh $(GOVULNCHECK)

fuzz: needs-go ## run each fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $(FUZZTIME)

e2e: needs-go ## test what needs more than Go: moto, the template, SAM's builds, the functions in containers
	scripts/e2e.sh

clients: build build/local ## check, test and build the Python and TypeScript clients: needs Python and Node
	clients/test.sh

bench: build ## measure, also in Python, and write docs/performance.md: ten minutes; QUICK=1 writes nothing
	cd internal/bench && $(GO_BUILD) -o ../../build/bench/bare ./bare && go build -o ../../build/bench/bench .
	python3 -m venv build/bench/venv && build/bench/venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r internal/bench/peer/requirements.txt || echo 'Measuring without Python.'
	build/bench/bench $(if $(QUICK),-quick) $(if $(ONLY),-only $(ONLY))

release: needs-go ## build what a release publishes in build/release: make release VERSION=1.2.3
	scripts/release.sh "$$VERSION"

publish: # by the release workflow, which has attested the files
	scripts/publish.sh "$$VERSION"

clean: ## remove what was built and installed here, but not the data of make local
	rm -rf build .aws-sam .venv

# sam build comes here through scripts/sam-build/<architecture>/Makefile, and make release through
# scripts/release.sh.
build-ProvisionFunction: FUNCTION := provision
build-RefreshFunction: FUNCTION := refresh
build-ConnectFunction: FUNCTION := connect
build-ProvisionFunction build-RefreshFunction build-ConnectFunction: needs-go
	@test -n '$(SAM_GOARCH)' -a -n '$(ARTIFACTS_DIR)' || { echo 'Run sam build or make build instead.' >&2; exit 1; }
	@GOOS=linux GOARCH=$(SAM_GOARCH) $(GO_BUILD) -o '$(ARTIFACTS_DIR)/bootstrap' ./functions/$(FUNCTION)
