#!/bin/sh
# Made by asterisk-bundle. ASTERISK_PYTHON names another interpreter of Python @PYTHON@, and what is
# to be found before the bundle's own packages stands in ASTERISK_PYTHONPATH.
here=$(dirname -- "$(readlink -f -- "$0")")
here=${here%/bin}
first="${ASTERISK_PYTHONPATH:+$ASTERISK_PYTHONPATH:}$here/site"
export PYTHONPATH="$first${PYTHONPATH:+:$PYTHONPATH}"
# What is installed stays as it was verified.
export PYTHONDONTWRITEBYTECODE="${PYTHONDONTWRITEBYTECODE-1}"
if [ -d "$here/lib" ]; then
  export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
python=${ASTERISK_PYTHON:-$(command -v python@PYTHON@ || command -v python3 || echo python3)}
exec "$python" -P -s@WORDS@ "$@"
