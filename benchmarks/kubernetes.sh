#!/usr/bin/env bash
# The Kubernetes layer as one would type it: binaries, control plane, node, pod network, device plugin, on two nodes that have
# every layer below. The yardstick of playbooks/kubernetes.yml, see benchmarks/testbed.py; it checks nothing and repairs nothing.
#
# Usage: kubernetes.sh STATE_DIR NAME, with the site's values (site_values in benchmarks/testbed.py) in the environment.
set -euo pipefail
state=$1 name=$2
: "${CONTROL:?}" "${WORKER:?}" "${MIRROR:?}" "${VERSION:?}" "${REPOSITORY:?}" "${ETCD_TAG:?}" "${DNS_TAG:?}" "${PLUGIN_IMAGE:?}"
: "${IGNORED_CHECKS:?}"

sockets=$(mktemp -d)
trap 'rm -rf "$sockets"' EXIT
on() {
  local address=$1
  shift
  ssh -i "$state/ssh/id_ed25519" -o UserKnownHostsFile="$state/ssh/known_hosts" -o IdentitiesOnly=yes \
    -o ControlMaster=auto -o ControlPath="$sockets/%h" -o ControlPersist=30 "root@$address" bash -eu -s -- "$@"
}

prepare() { # ADDRESS HOST
  on "$1" "$MIRROR/kubernetes/$VERSION" "/deep-$name/$2" <<'NODE'
cd /usr/local/bin
for program in kubeadm kubectl kubelet; do
  curl -fsS -o "$program" "$1/$program" && chmod 755 "$program"
done
curl -fsS "$1/SHA256SUMS" | grep -E ' \*?(kubeadm|kubectl|kubelet)$' | sha256sum --check --quiet
mkdir -p /etc/kubernetes/kubelet.conf.d
cat >/etc/systemd/system/kubelet.service <<'UNIT'
[Unit]
After=network-online.target containerd.service
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml --config-dir=/etc/kubernetes/kubelet.conf.d"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
Restart=always
RestartSec=5
StartLimitInterval=0
[Install]
WantedBy=multi-user.target
UNIT
root=
[ -e /sys/fs/cgroup/cgroup.controllers ] || root="cgroupRoot: $2"
cat >/etc/kubernetes/kubelet.conf.d/10-host.conf <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
$root
failCgroupV1: false
failSwapOn: false
resolvConf: /etc/kubernetes/resolv.conf
CONF
echo "nameserver $(ip route show default | cut -d' ' -f3)" >/etc/kubernetes/resolv.conf
systemctl daemon-reload
systemctl enable --quiet kubelet
NODE
}

init() {
  on "$CONTROL" "$CONTROL" "$VERSION" "$REPOSITORY" "$ETCD_TAG" "$DNS_TAG" "'$IGNORED_CHECKS'" <<'NODE'
mkdir -m 700 -p /etc/kubernetes/bench /var/log/kubernetes && cd /etc/kubernetes/bench
cat >audit-policy.yaml <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    userGroups: ["system:nodes"]
    verbs: [get, list, watch]
  - level: Metadata
YAML
cat >admission.yaml <<'YAML'
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: PodSecurity
    configuration:
      apiVersion: pod-security.admission.config.k8s.io/v1
      kind: PodSecurityConfiguration
      defaults: {enforce: baseline, enforce-version: latest}
      exemptions: {namespaces: [kube-system]}
YAML
cat >authentication.yaml <<'YAML'
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
    - path: /livez
    - path: /readyz
    - path: /healthz
    - path: /api/v1/namespaces/kube-public/configmaps/cluster-info
YAML
umask 077
cat >encryption.yaml <<YAML
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers: [{secretbox: {keys: [{name: key1, secret: "$(head -c 32 /dev/urandom | base64)"}]}}, {identity: {}}]
YAML
cat >kubeadm.yaml <<YAML
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: $1}
nodeRegistration:
  name: node1
  criSocket: unix:///run/containerd/containerd.sock
  taints: []
  ignorePreflightErrors: $6
  kubeletExtraArgs: [{name: node-ip, value: $1}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v$2
controlPlaneEndpoint: "$1:6443"
imageRepository: $3
encryptionAlgorithm: ECDSA-P256
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16}
apiServer:
  extraArgs:
    - {name: admission-control-config-file, value: /etc/kubernetes/bench/admission.yaml}
    - {name: audit-log-path, value: /var/log/kubernetes/audit.log}
    - {name: audit-policy-file, value: /etc/kubernetes/bench/audit-policy.yaml}
    - {name: authentication-config, value: /etc/kubernetes/bench/authentication.yaml}
    - {name: enable-admission-plugins, value: NodeRestriction}
    - {name: encryption-provider-config, value: /etc/kubernetes/bench/encryption.yaml}
    - {name: kubelet-certificate-authority, value: /etc/kubernetes/pki/ca.crt}
  extraVolumes:
    - {name: bench, hostPath: /etc/kubernetes/bench, mountPath: /etc/kubernetes/bench, readOnly: true, pathType: Directory}
    - {name: audit, hostPath: /var/log/kubernetes, mountPath: /var/log/kubernetes, pathType: DirectoryOrCreate}
etcd: {local: {dataDir: /var/lib/etcd, imageTag: $4}}
dns: {imageTag: $5}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
serverTLSBootstrap: true
readOnlyPort: 0
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
conntrack: {maxPerCore: 0, min: 0}
YAML
kubeadm init --config kubeadm.yaml >/dev/null
kubeadm token create --ttl 15m --print-join-command
NODE
}

join() {
  # The invitation is several words: kubeadm join ADDRESS --token TOKEN --discovery-token-ca-cert-hash HASH.
  on "$WORKER" "$WORKER" "'$IGNORED_CHECKS'" "$1" <<'NODE'
cat >/run/join.yaml <<YAML
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {apiServerEndpoint: "$5", token: "$7", caCertHashes: ["$9"]}
nodeRegistration:
  name: node2
  criSocket: unix:///run/containerd/containerd.sock
  ignorePreflightErrors: $2
  kubeletExtraArgs: [{name: node-ip, value: $1}]
YAML
kubeadm join --config /run/join.yaml >/dev/null
rm /run/join.yaml
NODE
}

pod_network() { # ADDRESS OWN_NETWORK OTHER_NETWORK OTHER_ADDRESS
  on "$@" <<'NODE'
mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-bench.conflist <<JSON
{"cniVersion": "1.0.0", "name": "bench", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni/networks", "ranges": [[{"subnet": "$1"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
ip route replace "$2" via "$3"
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
NODE
}

offer_gpus() {
  on "$CONTROL" "$PLUGIN_IMAGE" <<'NODE'
export KUBECONFIG=/etc/kubernetes/admin.conf
kubectl label node node2 nvidia.com/gpu.present=true deephdc.org/gpu=simulated deephdc.org/gpu-sharing=exclusive >/dev/null
kubectl apply -f - >/dev/null <<YAML
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
scheduling: {nodeSelector: {nvidia.com/gpu.present: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nvidia-device-plugin, namespace: kube-system}
data:
  config.yaml: |
    version: v1
    flags:
      migStrategy: none
      failOnInitError: true
      plugin: {deviceListStrategy: [volume-mounts], deviceIDStrategy: uuid}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nvidia-device-plugin, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: nvidia-device-plugin, namespace: kube-system}
rules:
  - {apiGroups: [nfd.k8s-sigs.io], resources: [nodefeatures], verbs: [get, create, update]}
  - {apiGroups: [""], resources: [pods], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: nvidia-device-plugin, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: nvidia-device-plugin}
subjects: [{kind: ServiceAccount, name: nvidia-device-plugin, namespace: kube-system}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodefeatures.nfd.k8s-sigs.io}
spec:
  group: nfd.k8s-sigs.io
  scope: Namespaced
  names: {kind: NodeFeature, listKind: NodeFeatureList, plural: nodefeatures, singular: nodefeature}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                features: {type: object, x-kubernetes-preserve-unknown-fields: true}
                labels: {type: object, additionalProperties: {type: string}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: nvidia-device-plugin, namespace: kube-system}
spec:
  selector: {matchLabels: {app: nvidia-device-plugin}}
  template:
    metadata: {labels: {app: nvidia-device-plugin}}
    spec:
      runtimeClassName: nvidia
      serviceAccountName: nvidia-device-plugin
      priorityClassName: system-node-critical
      nodeSelector: {deephdc.org/gpu-sharing: exclusive}
      containers:
        - name: device-plugin
          image: $1
          command: [nvidia-device-plugin, --config-file=/etc/nvidia-device-plugin/config.yaml]
          volumeMounts:
            - {name: config, mountPath: /etc/nvidia-device-plugin}
            - {name: every-gpu, mountPath: /var/run/nvidia-container-devices/all}
            - {name: kubelet, mountPath: /var/lib/kubelet/device-plugins}
        - name: gpu-feature-discovery
          image: $1
          command: [gpu-feature-discovery, --config-file=/etc/nvidia-device-plugin/config.yaml, --no-timestamp]
          env:
            - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          volumeMounts:
            - {name: config, mountPath: /etc/nvidia-device-plugin}
            - {name: every-gpu, mountPath: /var/run/nvidia-container-devices/all}
      volumes:
        - {name: config, configMap: {name: nvidia-device-plugin}}
        - {name: every-gpu, hostPath: {path: /dev/null, type: CharDevice}}
        - {name: kubelet, hostPath: {path: /var/lib/kubelet/device-plugins, type: Directory}}
YAML
kubectl -n kube-system rollout status --timeout=120s daemonset/nvidia-device-plugin >/dev/null
# The features as labels, and every GPU that they count allocatable.
features='{{range .items}}{{range $name, $value := .spec.labels}}{{$name}}={{$value}} {{end}}{{end}}'
until labels=$(kubectl -n kube-system get nodefeatures -o go-template="$features" 2>/dev/null) &&
  [[ $labels =~ nvidia.com/gpu.count=([0-9]+) ]]; do sleep 0.5; done
gpus=${BASH_REMATCH[1]}
# shellcheck disable=SC2086 # one word for each label
kubectl label node node2 --overwrite $labels >/dev/null
until [ "$(kubectl get node node2 -o jsonpath='{.status.allocatable.nvidia\.com/gpu}')" = "$gpus" ]; do sleep 0.5; done
NODE
}

# What cluster_nodes waits for: nodes that are Ready and serve a certificate of the cluster, and one replica of CoreDNS.
ready() {
  on "$CONTROL" "$CONTROL" "$WORKER" <<'NODE'
export KUBECONFIG=/etc/kubernetes/admin.conf
serves() { curl --silent --output /dev/null --cacert /etc/kubernetes/pki/ca.crt "https://$1:10250/"; }
pending='{{range .items}}{{if not .status.conditions}}{{.metadata.name}} {{end}}{{end}}'
until kubectl get csr -o go-template="$pending" | xargs --no-run-if-empty kubectl certificate approve >/dev/null 2>&1 &&
  serves "$1" && serves "$2"; do sleep 0.5; done
kubectl wait --for=condition=Ready --timeout=120s node --all >/dev/null
until [ "$(kubectl -n kube-system get deployment coredns -o jsonpath='{.status.availableReplicas}')" ]; do sleep 0.5; done
NODE
}

pod_cidr() {
  on "$CONTROL" <<<"kubectl --kubeconfig /etc/kubernetes/admin.conf get node $1 -o jsonpath={.spec.podCIDR}"
}

prepare "$CONTROL" node1 &
prepare "$WORKER" node2 &
wait %1
invitation=$(init)
wait %2
join "$invitation"
control_pods=$(pod_cidr node1) worker_pods=$(pod_cidr node2)
pod_network "$CONTROL" "$control_pods" "$worker_pods" "$WORKER"
pod_network "$WORKER" "$worker_pods" "$control_pods" "$CONTROL"
offer_gpus
ready
