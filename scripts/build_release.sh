#!/usr/bin/env bash
# Builds what a release consists of: `scripts/build_release.sh v0.2.0 dist`. Writes the sdist, the wheel, a bill of what
# the wheel needs (CycloneDX), the notes from CHANGELOG.md, and the checksums. Fails where tag and files disagree, where
# there are files that no commit has, and where the folder has files already.
set -euo pipefail
tag=${1:?the tag, such as v0.2.0}
mkdir -p "${2:?the folder to write}"
dist=$(realpath "$2")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -n "$(ls -A "$dist")" ]; then echo "$dist: is not empty" >&2; exit 1; fi
python3 scripts/release_notes.py "$tag" > "$work/notes.md"
changed=$(git status --porcelain --untracked-files=normal)
if [ -n "$changed" ]; then printf 'not in a commit, and not in a release:\n%s\n' "$changed" >&2; exit 1; fi

python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet 'build>=1.2' 'twine>=6.1' 'cyclonedx-bom>=7,<8'
"$work/tools/bin/python" -m build --outdir "$dist" . > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict "$dist"/fmrgen-*

python3 -m venv --without-pip "$work/installed"
"$work/tools/bin/pip" --python "$work/installed/bin/python" install --quiet "$dist"/fmrgen-*.whl
"$work/tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type library --output-reproducible \
  --output-file "$dist/sbom.cdx.json" "$work/installed"
mv "$work/notes.md" "$dist"
cd "$dist"
sha256sum fmrgen-* sbom.cdx.json > SHA256SUMS
cat SHA256SUMS
