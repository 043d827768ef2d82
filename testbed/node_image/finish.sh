#!/bin/sh -eu
# Runs in the new root file system. The environment holds DISABLED and MASKED, lists of units.
for unit in $DISABLED; do
    # A release that lacks the unit has nothing to disable.
    [ ! -e "/lib/systemd/system/$unit" ] || systemctl --quiet disable "$unit"
done
# shellcheck disable=SC2086 # a list of units
systemctl --quiet mask $MASKED
systemctl --quiet enable ssh.service
systemctl --quiet set-default multi-user.target
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /etc/hostname /etc/resolv.conf
: >/etc/machine-id
# Emptied here and not by mmdebstrap: afterwards their age must not say that they are fresh.
apt-get clean
rm -rf /var/lib/apt/lists/*
touch --date=@0 /var/lib/apt/lists
