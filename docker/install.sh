#!/bin/sh
# What the images' build stages share; run in the directory of the sources.
#   install.sh dependencies EXTRA... [--without NAME]   a venv in /opt/tcd: what pyproject.toml asks for, as constraints.txt pins it
#   install.sh add PACKAGE...                           packages without their own dependencies; `.` is tcd
#   install.sh sbom                                     /opt/tcd/sbom.cdx.json, of what is in the venv
# The installer lives in /opt/tools, which no image takes over.
set -eu
tools() { /opt/tools/bin/pip --disable-pip-version-check --no-cache-dir "$@"; }
[ -x /opt/tools/bin/pip ] || python3 -m venv /opt/tools
[ -x /opt/tcd/bin/python ] || python3 -m venv --without-pip /opt/tcd
does=$1
shift
case $does in
  dependencies)
    python3 docker/requirements.py pyproject.toml "$@" > /tmp/requirements.txt
    tools --python /opt/tcd/bin/python install -c constraints.txt -r /tmp/requirements.txt ;;
  add) tools --python /opt/tcd/bin/python install --no-deps "$@" ;;
  sbom)
    tools install cyclonedx-bom==7.5.0
    /opt/tools/bin/cyclonedx-py environment --output-reproducible -o /opt/tcd/sbom.cdx.json /opt/tcd/bin/python ;;
  *) echo "install.sh: $does?" >&2; exit 2 ;;
esac
