#!/bin/sh -eu
# Run on the host of the IAM: a second Keycloak beside the site's, as its publisher ships it, with a database of its own on the same
# PostgreSQL and the same certificate. Nothing but what it needs to start: PORT, ADDRESS, NAME and SECRET come from the environment.
folder=/var/tmp/plain-keycloak
zip=$(ls /opt/deephdc/keycloak/*/keycloak.zip)
mkdir -p "$folder"
unzip -q -o "$zip" -d "$folder"
home=$(echo "$folder"/keycloak-*)
runuser --user postgres -- psql --quiet --no-psqlrc <<SQL
CREATE ROLE plain LOGIN PASSWORD '$SECRET';
CREATE DATABASE plain OWNER plain ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0;
SQL
"$home/bin/kc.sh" build --db=postgres >/dev/null
exec systemd-run --quiet --unit=plain-keycloak --setenv=KC_DB_PASSWORD="$SECRET" --setenv=KC_BOOTSTRAP_ADMIN_CLIENT_ID=admin \
    --setenv=KC_BOOTSTRAP_ADMIN_CLIENT_SECRET="$SECRET" "$home/bin/kc.sh" start --optimized --db-username=plain \
    --db-url=jdbc:postgresql://127.0.0.1:5432/plain --hostname="https://$NAME:$PORT" --http-host="$ADDRESS" --https-port="$PORT" \
    --https-certificate-file=/etc/deephdc/iam/tls.crt --https-certificate-key-file=/etc/deephdc/iam/tls.key
