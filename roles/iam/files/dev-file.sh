#!/bin/sh
# Keycloak's database in a file, with the same verbs as postgresql.sh. A file can only be copied while Keycloak is stopped.
set -eu
umask 077
cd /var/lib/keycloak

case $1 in
dump)
    systemctl stop keycloak
    trap 'systemctl start keycloak' EXIT
    tar --create --file="$2" h2
    ;;
prepare)
    rm -rf restored before
    mkdir restored
    tar --extract --file="$2" --directory=restored || {
        rm -rf restored
        exit 1
    }
    chown --recursive keycloak:keycloak restored
    ;;
swap)
    [ ! -e h2 ] || mv h2 before
    mv restored/h2 h2
    ;;
back)
    [ ! -e before ] || { rm -rf h2 && mv before h2; }
    ;;
forget)
    rm -rf restored before
    ;;
esac
