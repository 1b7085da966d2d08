# Needs Rust, Python 3.10 or newer, and make; no Docker, and no AWS account.
PYTHON ?= python3
LOCAL_AWS = PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -u -m

.PHONY: help run demo send pending doctor test test-rust test-deployed model chaos load lint lint-rust lint-template dashboard tools clean

help: # What can be done here
	@sed -n 's/^\([a-z-]*\):[^#]*# \(.*\)/make \1\t\2/p' Makefile | expand -t 20

run: tools # Deploy to a local AWS, send four sample events, show what comes of them, and stay up until Ctrl-C
	@$(LOCAL_AWS) local_aws.demo --stay

demo: tools # The same, but end with the verdict as exit status
	@$(LOCAL_AWS) local_aws.demo

send: tools # Sign and post EVENT=events/<name>.json to `make run`, or to URL=<WebhookUrl>; EVENT_ID=<id>|keep, SECRET=<whsec_...>
	$(if $(EVENT),,$(error Which one? make send EVENT=events/opportunity.json))
	@# make hands SECRET on as a variable of the environment. WEBHOOK_SECRET is one already: the way past the shell's history.
	@WEBHOOK_SECRET="$${SECRET:-$$WEBHOOK_SECRET}" $(LOCAL_AWS) local_aws.send \
		$(if $(URL),--url '$(URL)') $(if $(EVENT_ID),--event-id '$(EVENT_ID)') -- '$(EVENT)'

pending: tools # List the alerts that are not out yet: of `make run`, or of STACK=<name> in the account that your shell is logged in to
	@$(LOCAL_AWS) local_aws.pending $(if $(STACK),--stack '$(STACK)')

doctor: tools # Tell what is wrong with `make run`, or with STACK=<name>, and how to mend it; ALERT=yes sends a real alert through it
	@$(LOCAL_AWS) local_aws.doctor $(if $(STACK),--stack '$(STACK)') $(if $(filter yes,$(ALERT)),--alert)

test: test-rust test-deployed # All tests

test-rust: # Against a real DynamoDB engine, and the real binary under a Lambda Runtime API
	cargo test --locked

test-deployed: tools # Against the deployed template on a local AWS
	$(LOCAL_AWS) unittest -v tests/every_option_of_the_template_deploys_test.py \
		tests/the_deployed_template_works_over_http_test.py tests/the_doctor_finds_what_is_wrong_test.py

model: # The claim protocol in every interleaving, and every three faults of the real code: some minutes; `make test` has smaller ones
	cargo test --locked --test no_interleaving_breaks_the_promise --test no_fault_at_any_call_loses_or_doubles_an_alert \
		-- --ignored --nocapture

chaos: # Ten thousand events while calls fail and processes are killed, some minutes; SEED=<number> plays one again
	cargo test --locked --test chaos_loses_nothing -- --ignored --nocapture

load: # Thousands of events over 1 to 8 processes: throughput and latency. Some minutes
	cargo test --locked --test load_is_shared_by_processes -- --ignored --nocapture

lint: lint-rust lint-template # Format, clippy, docs, the template's linters

lint-rust:
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps

lint-template: tools
	.venv/bin/cfn-lint template.yaml
# Told that it has just looked, sam does not ask the package index for its newest version.
	@mkdir -p .local-aws/sam && echo "{\"lastVersionCheck\": $$(date +%s).0}" > .local-aws/sam/metadata.json
	__SAM_CLI_APP_DIR=.local-aws/sam SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv/bin/sam validate
	$(PYTHON) docs/draw_dashboard.py --check

dashboard: # Draw docs/dashboard.svg anew from the dashboard in template.yaml
	$(PYTHON) docs/draw_dashboard.py

tools: .venv/installed # The pinned tools, into .venv

# The lock names everything there is to install, so pip has nothing to resolve.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	@echo "Installing the tools of requirements.txt into .venv (once; about a minute) ..."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes -r requirements.lock
	@touch $@

clean: # Remove everything that was built or installed
	cargo clean
	rm -rf .venv .aws-sam .local-aws
