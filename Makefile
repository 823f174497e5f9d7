# SPDX-License-Identifier: GPL-2.0-or-later
# Two commands do everything: `make run` shows the kill switch at work on a virtual router,
# `make test` passes every test. Both install what they need on a fresh Debian 12.

PYTHON := .venv/bin/python
export PYTHONPATH := $(CURDIR)/src:$(CURDIR)/tests
export PATH := $(PATH):/usr/sbin:/sbin

SHELL_SCRIPTS := tests/*.sh tests/vm/*.sh .ci/run files/usr/bin/portcullisctl files/etc/init.d/* \
	files/etc/hotplug.d/iface/* files/etc/uci-defaults/* files/usr/share/portcullis/*.sh \
	tests/router/standin/*.sh package/*.sh package/*/*.sh package/*/post* tests/images/*.sh

MACHINE_TESTS := tests/test_boot_to_power_off.py
VM_TESTS := tests/test_flow_tables.py tests/test_kernel_wireguard.py tests/test_lines.py tests/test_weather.py

.PHONY: run test test-leaks test-mutations test-vm test-newer test-openwrt lint bench ipk package clean

run: .venv/ready
	$(PYTHON) -m router.demo $(if $(KEEP),--keep)

# The first run is on pyroute2 0.7.9, which OpenWrt's releases have; the second on 0.9, the rest.
test: .venv/ready
	.venv-old/bin/python -m pytest -c src/pyproject.toml --rootdir . -n 2 -m 'pyroute2 and not vm' $(TESTS) $(if $(TESTS),|| test $$? = 5)
	$(PYTHON) -m pytest -c src/pyproject.toml --rootdir . -n 2 $(TESTS)

# Probe classes x states x disruptions as one table, then random sequences; a quarter of an hour.
# QUICK=1: a part, in two minutes. SEQUENCES=1000 SEED=7: so many sequences, from that seed on.
test-leaks: .venv/ready
	$(PYTHON) -m router.matrix $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(SEQUENCES),--sequences $(SEQUENCES))

# Each mechanism of K1 to K14 taken out once: which test notices. TESTS=K7 for some; JOBS at a time.
test-mutations: .venv/ready
	$(PYTHON) -m router.mutations $(if $(JOBS),--jobs $(JOBS)) $(TESTS)

# A virtual machine as the router, from power-on to power-off; and in it what this machine's kernel
# may lack: kernel WireGuard, flow tables, PPPoE, 6in4, DS-Lite. Minutes.
test-vm: .venv/ready
	tests/vm/setup.sh
	$(PYTHON) -m pytest -c src/pyproject.toml --rootdir . -q -m machine $(or $(TESTS),$(MACHINE_TESTS)) || test $$? = 5
	$(PYTHON) -m vm $(or $(TESTS),$(VM_TESTS))

# The same tests with nft 1.1 and Python 3.13 or later, in a Debian of its own: SUITE=sid.
test-newer: .venv/ready
	tests/newer.sh $(or $(SUITE),trixie) $(TESTS)

# The packages on OpenWrt itself, in containers; skipped where there is no engine or no image.
test-openwrt: .venv/ready
	PORTCULLIS_TEST_ISOLATED=1 $(PYTHON) -m pytest -c src/pyproject.toml --rootdir . -m openwrt -rs tests/test_openwrt.py

lint: .venv/ready tests/node_modules/ready
	.venv/bin/ruff check --config src/pyproject.toml src tests package
	.venv/bin/ruff format --config src/pyproject.toml --check src tests package
	PYTHONPATH= MYPYPATH=$(PYTHONPATH) .venv/bin/mypy --config-file src/pyproject.toml -p portcullis -p router -p vm -p images -p luci
	PYTHONPATH= MYPYPATH=package .venv/bin/mypy --config-file src/pyproject.toml package/*.py
	.venv/bin/node tests/node_modules/eslint/bin/eslint.js --config tests/eslint.config.mjs www tests
	shellcheck $(SHELL_SCRIPTS)
	shfmt -d -sr -s $(SHELL_SCRIPTS)

# With the libraries of OpenWrt's releases.
bench: .venv/ready
	.venv-old/bin/python -m router.bench

# The packages, without an SDK, into dist/. BYTECODE=none ships sources, BYTECODE=3.11 insists.
ipk:
	/usr/bin/python3 package/build.py $(if $(BYTECODE),--bytecode $(BYTECODE))

# The packages, by an SDK of openwrt-sdk.cfg: RELEASE=, TARGET=, or yours: SDK=, SDK_TARBALL=.
package:
	/usr/bin/python3 package/sdk.py $(if $(RELEASE),--release $(RELEASE)) $(if $(TARGET),--target $(TARGET)) \
		$(if $(SDK),--sdk $(SDK)) $(if $(SDK_TARBALL),--tarball $(SDK_TARBALL))

clean:
	rm -rf .venv .venv-old .vm .newer .mypy_cache .ruff_cache dist tests/.screenshots tests/node_modules

.venv/ready: tests/setup.sh tests/requirements.txt openwrt-sdk.cfg
	tests/setup.sh
	touch $@

# npm comes with the virtual environment, and installs what tests/package-lock.json says.
tests/node_modules/ready: tests/package-lock.json .venv/ready
	cd tests && PATH="$(CURDIR)/.venv/bin:$$PATH" npm ci --loglevel error --ignore-scripts --no-audit --no-fund > /dev/null
	touch $@
