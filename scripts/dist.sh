#!/usr/bin/env bash
# Builds the files of a release in target/dist: an archive with the stripped binary, a list of the crates in it (CycloneDX), the Debian
# package if cargo-deb is installed, and their checksums. Archives of one commit are equal, as far as their binaries are.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo cyclonedx --version >/dev/null 2>&1 || { echo "cargo-cyclonedx is missing: cargo install --locked cargo-cyclonedx" >&2; exit 1; }
bash scripts/needs.sh strip=binutils
release=$(bash scripts/package-files.sh)
dist=${release%/release}/dist
target=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=dialback-$version-$target
rm -rf "$dist"
mkdir -p "$dist/$name/completions"

strip -o "$dist/$name/dialback" "$release/dialback"
cp -r "$release/package/man" "$dist/$name/"
cp "$release/package/"*dialback* "$dist/$name/completions/"
cp -r deploy docs ./*.md LICENSE-APACHE LICENSE-MIT "$dist/$name/"
# Without what their programs leave deeper in these directories.
cp --parents certs/README.md examples/*.* examples/*/*.* examples/go/*/*.go "$dist/$name/"
changed=$(git log -1 --format=%ct 2>/dev/null || date +%s)
tar -C "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-$changed}" -c "$name" | gzip -n >"$dist/$name.tar.gz"
rm -r "${dist:?}/$name"

# It writes next to Cargo.toml.
cargo cyclonedx --quiet --format json --spec-version 1.5 --features cli --target "$target" --override-filename "$name.cdx"
# Without the directory of this clone.
sed "s#path+file://$PWD#path+file://#g" "$name.cdx.json" >"$dist/$name.cdx.json"
rm "$name.cdx.json"

if cargo deb --version >/dev/null 2>&1; then
    bash scripts/deb.sh
else
    echo "cargo-deb is not installed: no Debian package" >&2
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS)
ls -l "$dist"
