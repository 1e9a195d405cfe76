#!/usr/bin/env bash
# Adds a version of the documentation to the branch gh-pages, and pushes it. `scripts/publish_docs.sh v0.2.0` is the version
# 0.2, and `latest` unless there is a later one; `main` is `dev`, and `latest` until there is a release. PUSH= only commits.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?a tag such as v0.2.0, or main}
push=${PUSH---push}
export NO_MKDOCS_2_WARNING=1
git fetch --quiet origin gh-pages 2> /dev/null || true
git config user.name > /dev/null || git config user.name 'github-actions[bot]'
git config user.email > /dev/null || git config user.email '41898282+github-actions[bot]@users.noreply.github.com'
releases=$(mike list 2> /dev/null | grep -oE '^[0-9]+\.[0-9]+' || true)
if [[ "$name" =~ ^v([0-9]+\.[0-9]+)\.[0-9]+$ ]]; then
  version=${BASH_REMATCH[1]}
  newest=$(printf '%s\n' "$version" $releases | sort -V | tail -n 1)
elif [ "$name" = main ]; then
  version=dev
  newest=${releases:-dev}
else
  echo "$name: is neither main nor the tag of a release" >&2
  exit 1
fi
if [ "$version" = "$newest" ]; then
  mike deploy $push --update-aliases "$version" latest
  mike set-default $push --allow-empty latest
else
  mike deploy $push "$version"
fi
