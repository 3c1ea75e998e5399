#!/bin/sh
# The first process of a node: mounts what must be the node's own, then keeps its three daemons running.
# It runs in new mount, process, host name and network namespaces; when it ends, the node is gone.
#
# NODE    its name
# FOLDER  its folder, holding the configuration files
# TOOLS   the folder of containerd and its helpers
# KUBERNETES  the program of all Kubernetes components
# PAUSE   the image of the process that holds a pod's namespaces
# CREDENTIALS  its kubeconfig
# ADDRESS its address
# LABELS  its labels
set -eu

mount --make-rshared /
echo "$NODE" > /proc/sys/kernel/hostname

# What is in memory is lost in a power cut.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/containerd /run/cni

own() {
  mkdir -p "$FOLDER/own$1"
  mount --bind "$FOLDER/own$1" "$1"
}
own /var/log/pods # kubelets that share it delete each other's logs
own /var/log/containers
own /var/lib/kubelet
own /var/lib/cni

# The kubelet sets these for the whole machine; it shall find what it wants and leave the machine's alone.
shadow() {
  mkdir -p "$FOLDER/shadow"
  file="$FOLDER/shadow/$(basename "$1")"
  echo "$2" > "$file"
  mount --bind "$file" "$1"
}
shadow /proc/sys/vm/overcommit_memory 1
shadow /proc/sys/vm/panic_on_oom 0
shadow /proc/sys/kernel/panic 10
shadow /proc/sys/kernel/panic_on_oops 1
shadow /proc/sys/kernel/keys/root_maxkeys 1000000
shadow /proc/sys/kernel/keys/root_maxbytes 25000000

export PATH="$TOOLS/usr/bin:$TOOLS/usr/sbin:$PATH:/usr/sbin:/sbin"
socket=/run/containerd/containerd.sock

# A daemon that ends is started again, as an init system would.
keep() {
  log="$FOLDER/logs/$1.log"
  shift
  while :; do
    "$@" >> "$log" 2>&1 || :
    sleep 1
  done
}

mkdir -p "$FOLDER/logs"
keep containerd "$TOOLS/usr/bin/containerd" --config "$FOLDER/containerd.toml" &
until [ -S "$socket" ] && ctr --address "$socket" --namespace k8s.io images import "$PAUSE" > /dev/null 2>&1; do
  sleep 0.1
done
keep proxy "$KUBERNETES" proxy --config "$FOLDER/proxy.json" &
keep kubelet "$KUBERNETES" kubelet --config "$FOLDER/kubelet.json" --kubeconfig "$CREDENTIALS" \
  --hostname-override "$NODE" --node-ip "$ADDRESS" --node-labels "$LABELS" --cert-dir "$FOLDER/pki" &
wait
