#!/bin/sh
# Make the virtual environment that the Makefile works in: make-venv.sh PYTHON VENV
set -eu
python=$1
venv=$2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Ubuntu 22.04's python3 is 3.10, with newer ones beside it.
if [ "$python" = python3 ] && ! new_enough python3; then
    for other in python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$other"; then
            python=$other
            break
        fi
    done
fi
if ! new_enough "$python"; then
    echo "threadbridge needs Python 3.11 or newer; $python is $("$python" --version 2>&1 || true)." >&2
    echo "Name another one: make PYTHON=python3.12 ..." >&2
    exit 1
fi

has_pip() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

with_venv() {
    rm -rf "$venv"
    "$python" -m venv "$venv" >/dev/null 2>&1 && has_pip
}

# Debian and Ubuntu ship Python without the part of venv that brings pip. A pip of the system's can bring it, ...
with_system_pip() {
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv" >/dev/null 2>&1 &&
        "$python" -m pip --python "$venv/bin/python" install --quiet pip >/dev/null 2>&1 && has_pip
}

# ... and root can install what is missing.
with_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing $package, which this Python lacks ..."
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$package"; } >/dev/null 2>&1
    with_venv
}

if ! has_pip; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if ! { with_venv || with_system_pip || with_apt; }; then
        rm -rf "$venv"
        echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt install $package" >&2
        exit 1
    fi
fi
echo "Installing threadbridge and its libraries into $venv (once) ..."
"$venv/bin/python" -m pip install --quiet --requirement requirements.lock
"$venv/bin/python" -m pip install --quiet --no-deps --editable .
