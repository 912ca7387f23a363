# The commands of this project. Everything that touches the network does so in network namespaces; root is needed.
CARGO ?= cargo
BIN := target/release
# What the smallest gateways have no room for.
GATEWAY := --features selvedge-agent/gateway
export PATH := /usr/sbin:/sbin:$(PATH)

.PHONY: help demo test test-arch test-arch-quick test-arch-mips test-kube test-kube-operator bench-operator bench-mesh bench-dns bench build check unit lab-test interop units fuzz cross size cross-smoke \
    dist test-packages setup setup-test setup-arch

help:
	@echo 'make demo      set up, build, and watch a cloud and two hidden edges pass the 48 rows over IPsec'
	@echo 'make test      set up and run everything that proves it works'
	@echo 'make test-arch  the same programs on armv7, aarch64, mipsel and x86_64 kernels under QEMU; takes hours'
	@echo 'make test-kube  the operator on a real API server, the agents on KubeEdge, SuperEdge and OpenYurt'
	@echo 'make bench     throughput, latency, CPU and memory beside boringtun, wireguard-go and strongSwan'
	@echo 'make bench-mesh  traffic to Services beside kube-proxy, and EdgeMesh if EDGEMESH names its agent'
	@echo 'make bench-dns   names of Services beside CoreDNS, unbound and dnsmasq'
	@echo 'make bench-operator  the operator with 1,000, 5,000 and 10,000 nodes on a real API server: times, writes, memory'
	@echo 'make fuzz      run every fuzz target for a minute each (needs a nightly toolchain and cargo-fuzz)'
	@echo 'make cross     static programs for armv7, aarch64, mipsel, mips and x86_64 gateways, in target/cross'
	@echo 'make size      the same, and a table of their sizes beside the budgets'
	@echo 'make dist      tarballs, Debian packages, images and lists of parts of all programs, in target/dist'
	@echo 'make test-packages  what is packaged, checked as far as the registries go; part of make test'
	@echo 'make build     the three programs and the lab, optimised, in $(BIN)'

demo: setup build
	@$(BIN)/selvedge-lab demo

build:
	$(CARGO) build --locked --release $(GATEWAY) -p selvedge-agent -p selvedge-connector -p selvedge-operator -p selvedge-lab

test: setup-test check unit build interop lab-test units test-packages

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace $(GATEWAY) --all-targets -- -D warnings
	for features in '' api cni crl dns doctor gateway p384 pod quiet services socks; do \
	    $(CARGO) clippy --locked -p selvedge-agent --no-default-features --features "$$features" -- -D warnings || exit 1; \
	done
	lab/tools/deny

unit:
	$(CARGO) test --locked --workspace $(GATEWAY)
	$(CARGO) test --locked -p selvedge-plan --no-default-features --test minimal

interop: build
	$(CARGO) build --locked --release -p selvedge-ike --example ikectl
	$(BIN)/selvedge-lab interop

lab-test: build
	$(BIN)/selvedge-lab test

units: build
	deploy/systemd/test
	deploy/systemd/boot-test $(BIN)

# What one architecture is tested with. test-arch-quick: only mipsel, and only whether both datapaths survive a kill.
ARCHES := armv7-unknown-linux-musleabihf aarch64-unknown-linux-musl mipsel-unknown-linux-musl x86_64-unknown-linux-musl
IN_GUESTS := -p selvedge-agent -p selvedge-connector -p selvedge-operator -p selvedge-lab

test-arch: setup-arch build
	for target in $(ARCHES); do cross/build $$target --gateway $(IN_GUESTS) || exit 1; done
	$(BIN)/selvedge-lab arch --arch armv7,aarch64,mipsel,x86_64

# Big-endian mips is only one end of a pair; its kernel is made from source first.
test-arch-mips: setup-arch build
	cross/build mips-unknown-linux-musl -p selvedge-agent -p selvedge-lab
	$(BIN)/selvedge-lab arch --arch mips

test-arch-quick: setup-arch build
	cross/build mipsel-unknown-linux-musl --gateway $(IN_GUESTS)
	$(BIN)/selvedge-lab arch --arch mipsel --quick

# Programs of others, built from Go modules once, into target/kube/bin.
test-kube: setup-test build test-kube-operator
	lab/tools/setup kube
	lab/tools/kube/build kubernetes kubelet kubeedge superedge openyurt helm
	PROGRAMS=$(BIN) deploy/helm/test
	$(BIN)/selvedge-lab kube test

bench: setup-test build
	$(CARGO) build --locked --profile release-edge -p selvedge-agent -p selvedge-connector
	lab/tools/bench-peers
	$(BIN)/selvedge-lab bench tunnels

# EdgeMesh's module is in no registry: EDGEMESH=program, built from its repository.
bench-mesh: setup-test build
	lab/tools/kube/build kubernetes kube-proxy
	$(BIN)/selvedge-lab bench mesh $(if $(EDGEMESH),--edgemesh $(EDGEMESH))

# CoreDNS is built from its Go module.
bench-dns: setup-test build
	lab/tools/setup dns
	lab/tools/kube/build coredns
	$(BIN)/selvedge-lab bench dns

# Minutes, and 2 GB of memory.
bench-operator: build
	lab/tools/kube/build kubernetes
	$(BIN)/selvedge-lab kube bench

CROSS := armv7-unknown-linux-musleabihf aarch64-unknown-linux-musl mipsel-unknown-linux-musl \
    mips-unknown-linux-musl x86_64-unknown-linux-musl

cross:
	for target in $(CROSS); do cross/build $$target && cross/build $$target --minimal || exit 1; done

size: cross
	cross/size

# A few minutes: the smallest target only, on an emulated processor.
cross-smoke: build
	cross/smoke

fuzz:
	cd fuzz && for t in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run $$t -- -max_total_time=60 || exit 1; done

dist:
	deploy/dist

test-packages:
	deploy/test
	openwrt/test
	yocto/test

setup:
	@lab/tools/setup

setup-test:
	@lab/tools/setup test

setup-arch:
	@lab/tools/setup arch

# The operator on a real API server.
test-kube-operator:
	lab/tools/kube/build kubernetes gateway helm
	$(CARGO) test --locked -p selvedge-operator --test cluster -- --ignored --test-threads=2
