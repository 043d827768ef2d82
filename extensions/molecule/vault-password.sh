#!/bin/sh
# The vault password of the scenario's testbed. Before the nodes exist there is nothing to decrypt, and any word will do.
cat "$MOLECULE_EPHEMERAL_DIRECTORY/testbed/vault-password" 2>/dev/null || echo no-testbed-yet
