#!/bin/sh
# Puts the state of a backup of Jenkins in use: unpacked beside the present one, then exchanged for it. What was before stays in HOME.before.
set -eu

case $1 in
  unpack) # ARCHIVE HOME ACCOUNT
    rm -rf "${3:?}.new"
    mkdir "$3.new"
    tar --extract --gzip --no-same-owner --file "$2" --directory "$3.new"
    chown -R "$4:$4" "$3.new"
    chmod 0750 "$3.new"
    ;;
  exchange) # HOME
    # A run that was killed between the two renames goes on here.
    if [ -d "$2.new" ]; then
      if [ -d "$2" ]; then
        rm -rf "${2:?}.before"
        mv "$2" "$2.before"
      fi
      mv "$2.new" "$2"
    fi
    ;;
esac
