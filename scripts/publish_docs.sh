#!/usr/bin/env bash
# Adds a version of the documentation to the branch gh-pages, and pushes it: `scripts/publish_docs.sh v0.2.0` is the
# version 0.2, and `latest`; any other name is `dev`. PUSH= commits without pushing.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?a tag such as v0.2.0, or a branch}
push=${PUSH---push}
export NO_MKDOCS_2_WARNING=1
git config user.name > /dev/null || git config user.name 'github-actions[bot]'
git config user.email > /dev/null || git config user.email '41898282+github-actions[bot]@users.noreply.github.com'
if [[ "$name" =~ ^v([0-9]+\.[0-9]+)\.[0-9]+$ ]]; then
  mike deploy $push --update-aliases "${BASH_REMATCH[1]}" latest
  mike set-default $push latest
else
  mike deploy $push dev
fi
