#!/bin/sh -eu
# Weaknesses for an assessment to find, on a node of a testbed: `planted.sh plant`, and `planted.sh remove` afterwards.
users=/etc/deephdc/registry/users
export KUBECONFIG=/etc/kubernetes/admin.conf

plant() {
    # A port that nobody declared, that speaks without TLS and that asks nobody who it is.
    systemd-run --quiet --collect --unit=planted-port python3 -m http.server --directory /usr/local/share 9999
    # A port of every node that leads into the cluster, and for which nothing listens.
    kubectl create namespace planted
    kubectl --namespace=planted create service nodeport way-in --tcp=80 --node-port=30999
    # A key that everybody on the host can read.
    install -d -m 755 /etc/planted
    openssl genpkey -quiet -algorithm ed25519 -out /etc/planted/service.key
    chmod 644 /etc/planted/service.key
    # A program that everybody can replace.
    install -D -m 777 /bin/true /usr/local/lib/planted/job
    # The registry's administrator as installations are left.
    cp -p "$users" /root/planted.users
    python3 -W ignore -c 'import crypt; print("admin:" + crypt.crypt("admin", crypt.mksalt(crypt.METHOD_BLOWFISH)))' >>"$users"
    # A service with encryption of the last century.
    openssl req -x509 -newkey rsa:2048 -noenc -subj /CN=planted -days 2 -keyout /root/planted.key -out /root/planted.crt 2>/dev/null
    systemd-run --quiet --collect --unit=planted-tls openssl s_server -accept 9998 -www -key /root/planted.key -cert /root/planted.crt \
        -tls1_2 -cipher AES128-SHA:@SECLEVEL=0
    # A way in with a password.
    echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/00-planted.conf
    systemctl reload ssh
}

remove() {
    systemctl stop planted-port planted-tls || true
    kubectl delete namespace planted --ignore-not-found
    # Started again, or the next deployment would: the file is then older than the service once more.
    if [ -e /root/planted.users ]; then mv /root/planted.users "$users" && systemctl restart docker-registry; fi
    rm -rf /etc/planted /usr/local/lib/planted /root/planted.* /etc/ssh/sshd_config.d/00-planted.conf
    systemctl reload ssh
}

"$1"
