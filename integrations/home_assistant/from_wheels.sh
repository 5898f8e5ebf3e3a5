#!/usr/bin/env bash
# Home Assistant itself, for the test of its entities: a virtual environment beside .venv. 2024.3 is its last release for
# Python 3.11. It starts once, for what it installs by itself; later starts need no network.
#
#   integrations/home_assistant/from_wheels.sh [PYTHON [FOLDER]]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-.venv/bin/python}
folder=${2:-build/home-assistant}
stamp=$(sha256sum < "$0")
[ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/pip" install -q "homeassistant==2024.3.3"
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
EDGECAP_HOME_ASSISTANT_INSTALLS=1 timeout 300 "$folder/bin/python" tests/integrations/home_assistant_itself.py \
    "$trial/home" 1 nobody nothing < /dev/null 2> "$trial/errors" | grep -q ready || { tail -5 "$trial/errors" >&2; exit 1; }
printf '%s' "$stamp" > "$folder/.stamp"
