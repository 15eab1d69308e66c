# `make` or `make help` lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export CGO_ENABLED ?= 0
# A release's tag, or else what the next release will be called and the commit. The
# metrics library panics at a version of another form.
VERSION ?= $(shell git describe --tags --match 'v*' --exact-match 2>/dev/null || \
	echo v0.1.0-dev+$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)$$(git diff --quiet HEAD 2>/dev/null || echo .dirty))
COMMIT := $(shell git rev-parse --verify -q HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w \
	-X k8s.io/component-base/version.gitVersion=$(VERSION) \
	-X k8s.io/component-base/version.gitCommit=$(COMMIT) \
	-X k8s.io/component-base/version.gitTreeState=$(if $(findstring dirty,$(VERSION)),dirty,clean)
GO_FILES := $(shell find cmd pkg -name '*.go' -not -name '*_test.go') go.mod go.sum Makefile

## Use it

run: build ## Start a local cluster, deploy the manager on it with 3 replicas, and say what to try. Ctrl-C ends it.
	@hack/run.sh

build: bin/manager bin/localcluster ## Build bin/manager, bin/localcluster and bin/kubectl.

deploy: bin/kubectl ## Apply manifests/base to the cluster of KUBECONFIG. IMAGE=name:tag is an image that its nodes can pull.
	@hack/deploy.sh "$(IMAGE)"

clean: ## Remove everything that was built, and the local cluster's data.
	rm -rf bin .localcluster

## Check it

test: unit e2e ## Run every test: unit tests with the race detector, and the end-to-end tests on a local cluster.

unit: ## Run the unit tests with the race detector.
	@echo "==> unit tests with the race detector"
	CGO_ENABLED=1 go test -race ./cmd/... ./pkg/... ./test/architecture/...

e2e: build ## Run the tests on a local cluster: the cluster itself, end to end, and a few trials of each fault.
	@echo "==> the local cluster"
	cd hack/localcluster && go test -vet=off ./...
	@echo "==> end-to-end tests on a local cluster"
	go test -count=1 -timeout=30m -v ./test/e2e
	@echo "==> fault campaign, a few trials of each fault"
	go test -count=1 -timeout=30m -v ./test/faults

faults: build ## Run the fault campaign at length. TRIALS=n sets the trials of each fault (default 20), SEEDS=n those of the simulation.
	@echo "==> simulation of the elector"
	go test -count=1 -timeout=4h -run 'TestSimulation' ./pkg/leaderelection -seeds=$(or $(SEEDS),100000)
	@echo "==> fault campaign on a local cluster"
	TRIALS=$(or $(TRIALS),20) go test -count=1 -timeout=6h -v ./test/faults

lint: ## Run go vet and staticcheck.
	go vet ./...
	go tool -modfile=hack/tools/go.mod staticcheck ./...
	cd hack/localcluster && go vet $$(go list ./... | grep -v 'localcluster$$') # the rest is all of Kubernetes

verify: lint ## Check formatting, module files, and that everything compiles for darwin and windows too.
	@test -z "$$(gofmt -l cmd pkg test hack)" || { echo "not gofmt-ed:"; gofmt -l cmd pkg test hack; exit 1; }
	go mod tidy -diff
	cd hack/localcluster && go mod tidy -diff
	GOOS=darwin go build ./cmd/... ./pkg/...
	GOOS=windows go build ./cmd/... ./pkg/...

help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bin/manager: $(GO_FILES)
	@hack/progress.sh "manager" go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/manager

# The script decides whether there is anything to do.
bin/localcluster: force
	@hack/localcluster/build.sh $@

bin/kubectl: bin/localcluster
	@ln -sf localcluster $@

build: bin/kubectl

force:

.PHONY: run build deploy clean test unit e2e faults lint verify help force
