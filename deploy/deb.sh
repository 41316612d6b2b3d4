#!/bin/sh
# Builds a Debian package without dependencies from a static binary: deb.sh BINARY DIR. `make deb` runs this script.
set -eu
cd "$(dirname "$0")/.."
binary=$1 dir=$2
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)-1
architecture=$(dpkg --print-architecture)
root=$dir/deb
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}"
maintainer='The sha-api authors <sha-api@users.noreply.github.com>'

rm -rf "$root"
umask 022
make --no-print-directory --silent install-files binary="$binary" DESTDIR="$root" prefix=/usr \
    zshdir=/usr/share/zsh/vendor-completions
gzip -9n "$root"/usr/share/man/man1/*.1
put() { install -D -m "$1" "$2" "$root/$3"; }
put 644 deploy/sha-api.service lib/systemd/system/sha-api.service
put 644 deploy/sha-api.socket lib/systemd/system/sha-api.socket
put 644 deploy/sha-api.toml etc/sha-api/sha-api.toml
put 644 deploy/logrotate etc/logrotate.d/sha-api
for example in nginx.conf haproxy.cfg; do put 644 "deploy/$example" "usr/share/doc/sha-api/examples/$example"; done

doc=$root/usr/share/doc/sha-api
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\n'
    sed -n 's/^Copyright (c)/Copyright:/p' LICENSE
    printf 'License: Expat\n'
    sed '1,4d; s/^$/./; s/^/ /' LICENSE
} > "$doc/copyright"
gzip -9nc CHANGELOG.md > "$doc/changelog.gz"
printf 'sha-api (%s) unstable; urgency=medium\n\n  * See changelog.gz for the changes.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" | gzip -9n > "$doc/changelog.Debian.gz"
put 644 deploy/deb/lintian-overrides usr/share/lintian/overrides/sha-api

mkdir "$root/DEBIAN"
(cd "$root" && find etc -type f -printf '/%p\n' | sort) > "$root/DEBIAN/conffiles"
(cd "$root" && find lib usr -type f -print0 | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
install -m 755 deploy/deb/postinst deploy/deb/prerm "$root/DEBIAN"
cat > "$root/DEBIAN/control" << END
Package: sha-api
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k -s "$root" | cut -f1)
Suggests: ca-certificates, logrotate
Section: utils
Priority: optional
Homepage: $(sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml)
Description: store for messages that are addressed by their SHA-256 digest
 Storing a message returns its digest, and the digest returns exactly the same
 bytes. One static binary is the command line, the HTTP client and the HTTPS
 server. Acknowledged messages survive a crash and a power cut. Bytes that do
 not match their digest are never returned.
END
find "$root" -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"
dpkg-deb --root-owner-group --build "$root" "$dir/sha-api_${version}_$architecture.deb"
