#!/bin/sh
# Keycloak's database in PostgreSQL.
#   dump FILE      write it as it is at this moment, Keycloak going on
#   prepare FILE   make another one of a dump, beside the one in use; what a killed run has left is undone first
#   swap           put the other one in use; back: undo it; forget: remove all but the one in use
set -eu
umask 077
cd /

as_postgres() {
    runuser --user postgres -- "$@"
}

sql() {
    as_postgres psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"
}

set_aside() {
    sql --command="SELECT datname FROM pg_database WHERE datname = 'keycloak_before'"
}

stop_for_now() {
    ! systemctl cat keycloak >/dev/null 2>&1 || {
        systemctl stop keycloak
        trap 'systemctl start keycloak' EXIT
    }
}

rename() {
    sql <<SQL
BEGIN;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'keycloak' \g /dev/null
ALTER DATABASE keycloak RENAME TO $2;
ALTER DATABASE $1 RENAME TO keycloak;
COMMIT;
SQL
}

forget() {
    sql <<SQL
DROP DATABASE IF EXISTS keycloak_restored WITH (FORCE);
DROP DATABASE IF EXISTS keycloak_before WITH (FORCE);
SQL
}

case $1 in
dump)
    as_postgres pg_dump --format=custom keycloak >"$2"
    ;;
prepare)
    # In a variable first: where the database cannot be asked, this ends here.
    before=$(set_aside)
    [ -z "$before" ] || {
        stop_for_now
        rename keycloak_before keycloak_restored
    }
    forget
    sql <<SQL
CREATE DATABASE keycloak_restored OWNER keycloak ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0;
REVOKE ALL ON DATABASE keycloak_restored FROM PUBLIC;
SQL
    as_postgres pg_restore --exit-on-error --no-owner --role=keycloak --dbname=keycloak_restored <"$2" || {
        forget
        exit 1
    }
    ;;
swap)
    rename keycloak_restored keycloak_before
    ;;
back)
    before=$(set_aside)
    [ -z "$before" ] || rename keycloak_before keycloak_restored
    ;;
forget)
    forget
    ;;
esac
