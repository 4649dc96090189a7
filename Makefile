# `make demo` shows the whole story, `make test` is the test command.
GO = $(shell scripts/go)
BIN = bin/logvault

.PHONY: build demo test seeds lint crash e2e fuzz bench clean

build:
	@scripts/setup build
	$(MAKE) --no-print-directory $(BIN)

$(BIN): FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/logvault
FORCE:

demo:
	@scripts/setup demo
	@$(MAKE) --no-print-directory $(BIN)
	$(BIN) demo

# Under the race detector the tests that go through seeds take a share of them.
# Three packages at once: those of the stores mostly wait. The time-outs of all
# tests are there to end a hang, not to judge a slow machine.
test: lint
	$(GO) test -race -short -p 3 -timeout 60m ./...

# Every seed, operation and byte, without the race detector.
seeds:
	@scripts/setup test
	$(GO) test -timeout 60m ./...

lint:
	@scripts/setup test
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt would change these files"; exit 1; }
	$(GO) vet ./...

# Real binaries killed at random moments, power cuts, canaries, flipped bytes.
# KILLS and CUTS set how often; SEED repeats a run.
KILLS = 200
CUTS = 20
crash:
	@scripts/setup crash
	KILLS=$(KILLS) CUTS=$(CUTS) SEED=$(SEED) scripts/crash

# Real counterparts: the Linux NFS client in a guest, Tessera's fsck, a C2SP
# witness, OpenSSH's sshd, MinIO, versitygw. LOGVAULT_SAMPLE names a large log to send through; E2E=all runs every scenario of the guest.
E2E =
e2e:
	@scripts/setup e2e
	E2E=$(E2E) $(GO) test -tags e2e -count=1 -timeout 60m ./ledger/... ./vault/... ./cmd/logvault ./fixtures/nfs-guest ./ingest/watch

# Each fuzz target for FUZZTIME.
FUZZTIME = 30s
fuzz:
	scripts/fuzz $(FUZZTIME)

# Ratios against the named peers, interleaved, medians. Parts: scripts/bench -only seal
bench:
	@scripts/setup bench
	scripts/bench

clean:
	rm -rf bin
