# make, or make help, lists the targets. CI runs these and nothing else.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
TESTFLAGS   ?=

# A module of its own, in which Microsoft's library holds the stand-in Entra to the truth.
MSAL := pkg/entra/entratest/msal

# Nothing here needs a C compiler but the race detector.
export CGO_ENABLED := 0

# What is demonstrated is built as what is deployed: no C library, no paths, no debug symbols, and none of the RPC that
# only the retired go1.x runtime used.
GO_BUILD := go build -buildvcs=false -trimpath -tags lambda.norpc -ldflags "-s -w"

.DEFAULT_GOAL := help
.PHONY: help build demo local test check e2e bench clean build-ProvisionFunction build-RefreshFunction

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## build both functions for this machine, or for GOOS and GOARCH: build/<function>/bootstrap
	$(GO_BUILD) -o build/provision/bootstrap ./functions/provision
	$(GO_BUILD) -o build/refresh/bootstrap ./functions/refresh

demo: build build/local ## show the connector at work, with stand-ins for Entra and Secrets Manager; ends by itself
	build/local demo$(if $(V), -v)

# Not with go run, which ends with an error when it is interrupted.
local: build build/local ## keep the same stack running on http://127.0.0.1:3000 until Ctrl-C; ADDR=, EVERY=, DATA=, V=1
	build/local serve$(if $(ADDR), -addr '$(ADDR)')$(if $(EVERY), -every '$(EVERY)')$(if $(DATA), -data '$(DATA)')$(if $(V), -v)

.PHONY: build/local
build/local: # for this machine, also where GOARCH names another
	env -u GOOS -u GOARCH go build -buildvcs=false -o $@ ./cmd/local

test: ## run the tests, with the race detector where the machine has what that needs
	@if env -u CGO_ENABLED go test -race -run '^$$' sort >/dev/null 2>&1; then \
		set -x; env -u CGO_ENABLED go test -race -shuffle=on $(TESTFLAGS) ./... && \
		cd $(MSAL) && env -u CGO_ENABLED go test -race -shuffle=on $(TESTFLAGS) ./...; \
	else \
		echo 'No race detector here: it needs a C compiler. Testing without it.'; \
		set -x; go test -shuffle=on $(TESTFLAGS) ./... && cd $(MSAL) && go test -shuffle=on $(TESTFLAGS) ./...; \
	fi

check: ## find what is wrong without running it; changes nothing
	@unformatted=$$(gofmt -l cmd functions internal pkg); test -z "$$unformatted" || \
		{ echo "gofmt -w would change:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go mod tidy -diff
	cd $(MSAL) && go vet ./... && go mod tidy -diff
	go run $(STATICCHECK) ./...

e2e: ## prove what needs more than Go: moto, the template and its builds, and both functions in containers
	scripts/e2e.sh

bench: build ## measure against the targets, and beside the same in Python; ten minutes; writes docs/performance.md
	$(GO_BUILD) -o build/bench/bare ./internal/bench/bare
	go build -buildvcs=false -o build/bench/bench ./internal/bench
	build/bench/bench

clean: ## remove what was built and installed here; the data of make local stays
	rm -rf build .aws-sam .venv

# sam build comes in through scripts/sam-build/<architecture>/Makefile, which sets SAM_GOARCH.
build-ProvisionFunction: FUNCTION := provision
build-RefreshFunction: FUNCTION := refresh
build-ProvisionFunction build-RefreshFunction:
	@test -n '$(SAM_GOARCH)' -a -n '$(ARTIFACTS_DIR)' || { echo 'This target is for sam build.' >&2; exit 1; }
	GOOS=linux GOARCH=$(SAM_GOARCH) $(GO_BUILD) -o '$(ARTIFACTS_DIR)/bootstrap' ./functions/$(FUNCTION)
