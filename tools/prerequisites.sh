#!/bin/sh
# A compiler, Python's headers and venv: what a fresh Debian or Ubuntu lacks to build the package.
missing=""
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
"${PYTHON:-python3}" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
"${PYTHON:-python3}" - <<'EOF' 2>/dev/null || missing="$missing python3-dev"
import os, sysconfig
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
EOF
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q $missing
else
    echo "missing packages:$missing; install them, for example: sudo apt-get install$missing" >&2
    exit 1
fi
