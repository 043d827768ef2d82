#!/bin/sh
# Turns unpacked packages into a usable root: no maintainer script of Debian has run in it. $1: the root.
set -eu
root=$1

for folder in bin sbin lib lib64; do
    [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
mkdir -p "$root/proc" "$root/sys" "$root/run" "$root/root" "$root/etc/ssl/certs" "$root/usr/local/bin"

# Debian's alternatives: the nftables back end, as on a node.
for name in iptables ip6tables; do
    for action in "" -save -restore; do
        ln -sf "$name-nft$action" "$root/usr/sbin/$name$action"
    done
done

cat "$root"/usr/share/ca-certificates/mozilla/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"

# Every tool of busybox that no package brings itself.
for tool in $(chroot "$root" /usr/bin/busybox --list); do
    [ -e "$root/usr/bin/$tool" ] || [ -L "$root/usr/sbin/$tool" ] || [ -e "$root/usr/sbin/$tool" ] || ln -s busybox "$root/usr/bin/$tool"
done

printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"

# A layer that cannot run its own programs must not get any further.
for program in "sh -c true" "iptables --version" "ip6tables --version" "nft --version" "conntrack --version" "modprobe --version"; do
    # shellcheck disable=SC2086 # program and arguments
    chroot "$root" $program > /dev/null
done
