#!/bin/sh
# Writes the lock of the plugins (variable jenkins_plugins) for a folder of files that jenkins-plugin-manager has downloaded.
set -eu

usage() {
  echo "$1. Next: sh lock.sh FOLDER >inventories/SITE/group_vars/all/jenkins_plugins.yml" >&2
  exit 2
}

[ $# -eq 1 ] || usage "found $# arguments, needed the folder with the plugins"
[ -n "$(find "$1" -maxdepth 1 -name '*.jpi' -print -quit 2>/dev/null)" ] || usage "found no .jpi file in '$1', needed the plugins"

lock=
for file in "$1"/*.jpi; do
  # Long values go on in the next line, after a space; versions do not.
  version=$(unzip -p "$file" META-INF/MANIFEST.MF | tr -d '\r' | sed -n 's/^Plugin-Version: \([^ ]*\).*/\1/p')
  [ -n "$version" ] || usage "found no version in $file, needed a plugin of Jenkins"
  sum=$(sha256sum <"$file")
  name=${file##*/}
  lock="$lock  - {name: ${name%.jpi}, version: \"$version\", sha256: \"${sum%% *}\"}
"
done
printf -- '---\njenkins_plugins:\n%s' "$lock"
