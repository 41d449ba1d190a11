#!/bin/sh
# Make the virtual environment that the Makefile works in: make-venv.sh PYTHON VENV
set -eu
python=$1
venv=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1

"$python" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"threadbridge needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
             "Name another one: make PYTHON=python3.12 ...")
CHECK

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian and Ubuntu ship Python without its venv module.
        rm -rf "$venv"
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "Installing $version, which this Python lacks ..."
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$version"; } >/dev/null 2>&1 || true
        fi
        "$python" -m venv "$venv" || {
            rm -rf "$venv"
            echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt install $version" >&2
            exit 1
        }
    fi
fi
echo "Installing threadbridge and its libraries into $venv (once) ..."
"$venv/bin/python" -m pip install --quiet --requirement requirements.lock
"$venv/bin/python" -m pip install --quiet --no-deps --editable .
