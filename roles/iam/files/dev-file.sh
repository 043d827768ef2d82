#!/bin/sh
# Keycloak's database in a file, with the same verbs as postgresql.sh. A file can only be copied while Keycloak is stopped.
set -eu
umask 077
cd /var/lib/keycloak

stop_for_now() {
    ! systemctl cat keycloak >/dev/null 2>&1 || {
        systemctl stop keycloak
        trap 'systemctl start keycloak' EXIT
    }
}

back() {
    # Killed between the two, this is done again: `before` is there until it is in its place.
    [ ! -e before ] || { rm -rf h2 && mv before h2; }
}

case $1 in
dump)
    stop_for_now
    tar --create --file="$2" h2
    ;;
prepare)
    [ ! -e before ] || stop_for_now
    back
    rm -rf restored
    mkdir restored
    tar --extract --file="$2" --directory=restored || {
        rm -rf restored
        exit 1
    }
    chown --recursive keycloak:keycloak restored
    ;;
swap)
    # On a new host nothing is set aside, so that this can be undone there too.
    [ -e h2 ] || install --directory --owner=keycloak --group=keycloak h2
    mv h2 before
    mv restored/h2 h2
    ;;
back)
    back
    ;;
forget)
    rm -rf restored before
    ;;
esac
