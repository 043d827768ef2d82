#!/bin/sh
# Turns unpacked packages into a root in which Python runs: no maintainer script of Debian has run in it. $1: the root.
set -eu
root=$1

for folder in bin sbin lib lib64; do
    [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
mkdir -p "$root/proc" "$root/sys" "$root/run" "$root/root" "$root/tmp" "$root/etc/ssl/certs"

cat "$root"/usr/share/ca-certificates/mozilla/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"

printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"

# Bytecode of the standard library, which nobody can write later; the same wherever it is made.
chroot "$root" /usr/bin/python3 -IS -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.13 > /dev/null

# A layer that cannot run its own programs must not get any further.
chroot "$root" /usr/bin/python3 -IS -c 'import ctypes, hashlib, lzma, multiprocessing, sqlite3, ssl, zoneinfo'
