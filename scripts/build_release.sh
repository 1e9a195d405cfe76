#!/usr/bin/env bash
# Builds what a release consists of: `scripts/build_release.sh v0.2.0 dist`. Writes the sdist, the wheel, a bill of what
# the wheel needs (CycloneDX), the notes from CHANGELOG.md, and the checksums. Fails where tag and files disagree.
set -euo pipefail
tag=${1:?the tag, such as v0.2.0}
mkdir -p "${2:?the folder to write}"
dist=$(realpath "$2")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 scripts/release_notes.py "$tag" > "$dist/notes.md"
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet 'build>=1.2' 'twine>=6.1' 'cyclonedx-bom>=7,<8'
"$work/tools/bin/python" -m build --outdir "$dist" . > /dev/null
"$work/tools/bin/twine" check --strict "$dist"/fmrgen-*

python3 -m venv "$work/installed"
"$work/installed/bin/pip" install --quiet "$dist"/fmrgen-*.whl
"$work/tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type library --output-reproducible \
  --output-file "$dist/sbom.cdx.json" "$work/installed"
cd "$dist"
sha256sum fmrgen-* sbom.cdx.json > SHA256SUMS
cat SHA256SUMS
