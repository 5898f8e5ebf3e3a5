#!/usr/bin/env bash
# A Python whose OpenCV opens windows, for the test of the sink `window:`; the development's own has none (the headless package).
#
#   tools/opencv_with_windows.sh [PYTHON [FOLDER]]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
folder=${2:-build/opencv-windows}
stamp=$(sha256sum < "$0")
[ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/pip" install -q opencv-python python-xlib
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
# EdgeCap and what it needs come from the environment that it is developed in.
"$python" - > "$site/edgecap_development.pth" <<'EOF'
import sysconfig
print(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})")
EOF
"$folder/bin/python" -c 'import cv2, edgecap; assert "QT" in cv2.getBuildInformation()'
printf '%s' "$stamp" > "$folder/.stamp"
