#!/bin/sh -eu
# Run on the host of the IAM: a second Keycloak beside the site's, as its publisher ships it, with a database of its own on the same
# PostgreSQL, the same certificate and as much memory. Nothing but what it needs to start: PORT, ADDRESS and NAME come from the environment.
# Prints the secret of its administrator.
umask 077
folder=/var/tmp/plain-keycloak
zip=$(ls /opt/deephdc/keycloak/*/keycloak.zip)
secret=$(openssl rand -hex 24)
mkdir -p "$folder"
unzip -q -o "$zip" -d "$folder"
home=$(echo "$folder"/keycloak-*)
runuser --user postgres -- psql --quiet --no-psqlrc <<SQL
CREATE ROLE plain LOGIN PASSWORD '$secret';
CREATE DATABASE plain OWNER plain ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0;
SQL
cat >"$folder/environment" <<ENVIRONMENT
KC_DB_PASSWORD=$secret
KC_BOOTSTRAP_ADMIN_CLIENT_ID=admin
KC_BOOTSTRAP_ADMIN_CLIENT_SECRET=$secret
ENVIRONMENT
"$home/bin/kc.sh" build --db=postgres >/dev/null
systemd-run --quiet --unit=plain-keycloak --property=EnvironmentFile="$folder/environment" \
    --property="$(grep '^Environment="JAVA_OPTS_KC_HEAP=' /etc/systemd/system/keycloak.service)" \
    "$home/bin/kc.sh" start --optimized --db-username=plain --db-url=jdbc:postgresql://127.0.0.1:5432/plain \
    --hostname="https://$NAME:$PORT" --http-host="$ADDRESS" --https-port="$PORT" \
    --https-certificate-file=/etc/deephdc/iam/tls.crt --https-certificate-key-file=/etc/deephdc/iam/tls.key
echo "$secret"
