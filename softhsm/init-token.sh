#!/bin/sh
# Make a throw-away SoftHSM token without asking anything:
#
#     softhsm/init-token.sh DIRECTORY [LABEL]
#
# DIRECTORY is made, for its owner only, and must not hold a token yet; any number of them may stand side by side. In it:
#     softhsm2.conf   to be named by SOFTHSM2_CONF in the environment of whoever uses the token
#     tokens/         the token
#     pin, so-pin     random, mode 0400
# LABEL is "tssd" unless given. For trials and tests: SoftHSM keeps its keys in files, so this protects nothing.
set -eu
umask 077

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ -z "$1" ]; then
    echo "usage: init-token.sh DIRECTORY [LABEL]" >&2
    exit 64
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
label=${2:-tssd}

case $label in
*[!A-Za-z0-9._-]*) echo "init-token.sh: label '$label': letters, digits and . _ - only" >&2; exit 64 ;;
esac
for tool in softhsm2-util script; do
    if ! command -v "$tool" >/dev/null; then
        echo "init-token.sh: $tool is missing; install the packages softhsm2 and bsdutils" >&2
        exit 69
    fi
done

mkdir -p -- "$1"
directory=$(CDPATH='' cd -- "$1" && pwd)
if ! mkdir -- "$directory/tokens" 2>/dev/null; then
    echo "init-token.sh: $directory has a token already; name another directory" >&2
    exit 73
fi

while IFS= read -r line; do
    case $line in
    *@DIRECTORY@*) printf '%s%s%s\n' "${line%%@DIRECTORY@*}" "$directory" "${line#*@DIRECTORY@}" ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$here/softhsm2.conf" >"$directory/softhsm2.conf"

for file in pin so-pin; do
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$directory/$file"
    chmod 0400 "$directory/$file"
done

# softhsm2-util takes a PIN from its arguments, where every user of the machine can read it, or from a terminal, where it
# asks for each one twice; script(1) is that terminal, and its output, which repeats the PINs, goes nowhere.
SOFTHSM2_CONF=$directory/softhsm2.conf
export SOFTHSM2_CONF
for file in so-pin so-pin pin pin; do
    cat -- "$directory/$file"
    echo
done | script -qec "softhsm2-util --init-token --free --label $label" /dev/null >/dev/null || true

if ! softhsm2-util --show-slots | grep -q "Label: *$label *\$"; then
    echo "init-token.sh: softhsm2-util made no token in $directory" >&2
    exit 70
fi
