#!/bin/sh
# Fetches the browser assets that the site and its tests ship, from npm, into book/assets/vendor.
# Run by hand (`make vendor`) when a version below changes; readers and CI never need it.
set -eu
KATEX=katex@0.16.22      # the style and fonts of the KaTeX inside sphinxcontrib-katex; MIT
AXE=axe-core@4.10.3      # accessibility checks, used by the tests only; MPL-2.0
out=$(cd "$(dirname "$0")/.." && pwd)/book/assets/vendor
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fetch() {
    (cd "$tmp" && npm pack --silent "$1" >/dev/null && mkdir "$2" && tar xzf "$2"-*.tgz -C "$2")
}
rm -rf "$out"
mkdir -p "$out/katex/fonts" "$out/../../../tests/vendor"
fetch "$KATEX" katex
cp "$tmp"/katex/package/LICENSE "$out/katex/"
cp "$tmp"/katex/package/dist/fonts/*.woff2 "$out/katex/fonts/"
# The stylesheet lists woff and ttf behind woff2; every browser since 2016 reads the first.
sed -E 's/,url\([^)]*\.(woff|ttf)\) format\("[a-z]+"\)//g' "$tmp"/katex/package/dist/katex.min.css >"$out/katex/katex.min.css"
fetch "$AXE" axe-core
cp "$tmp"/axe-core/package/axe.min.js "$tmp"/axe-core/package/LICENSE "$out/../../../tests/vendor/"
echo "$KATEX $AXE" >"$out/VERSIONS"
