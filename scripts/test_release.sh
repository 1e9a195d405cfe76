#!/usr/bin/env bash
# Tests a built release, away from any checkout: `scripts/test_release.sh sdist dist`, or `wheel`. It is installed in a
# virtual environment of its own; the tests are those of the sdist.
set -euo pipefail
form=${1:?sdist or wheel}
dist=$(realpath "${2:?the folder with the built files}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf"

mkdir "$work/source"
tar --extract --file "$dist"/fmrgen-*.tar.gz --directory "$work/source" --strip-components 1
python3 -m venv "$work/venv"
. "$work/venv/bin/activate"
case "$form" in
  sdist) pip install --quiet "$work/source[test]" ;;
  wheel) pip install --quiet "$(echo "$dist"/fmrgen-*.whl)[test]" ;;
  *) echo "$form: choose sdist or wheel" >&2; exit 2 ;;
esac
rm -rf "$work/source/fmrgen"  # what is tested is what is installed
cd "$work/source"
pytest -n 4

# README's two commands, and whether the split is true.
cd "$work"
fmrgen generate mnist-lenet --limit 50 --output out
fmrgen verify out:mnist/lenet
