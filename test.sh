#!/usr/bin/env bash
# test.sh: everything that must hold, in one command.
#
#   ./test.sh             install the real peers that are missing (as root on Debian), then run all of it
#   ./test.sh --fast      what needs no peers: under three minutes
#   ./test.sh --install   install the peers and stop
#   ./test.sh STEP ...    only these steps; their names are the words in the section headers
#
# Every step runs even when an earlier one failed; the last lines say what passed. FUZZTIME (default 2s) is the time a
# fuzz target gets. With CI=true a peer that cannot be had is a failure; elsewhere its tests are skipped by name.
set -uo pipefail
cd "$(dirname "$0")" || exit 2

# ---- the machine: Debian's packages, and what needs them ----

# a program that shows the package is there, and the package
peers="
gcc:gcc gcc:libc6-dev
postfix:postfix postmap:postfix-lmdb smtp-sink:postfix
dovecot:dovecot-imapd dovecot:dovecot-lmtpd
unbound:unbound
nsd:nsd ldns-signzone:ldnsutils
softhsm2-util:softhsm2
opendkim:opendkim
swaks:swaks swaks:libnet-ssleay-perl
python3:python3
strace:strace
haproxy:haproxy
mbsync:isync
exim4:libgnutls-dane0 exim4:libidn12 exim4:libnsl2 exim4:libevent-2.1-7 exim4:libdb5.3
"
# Debian lets one mail server be installed, and that is Postfix: the others are unpacked beside it.
exim=/usr/local/sbin/exim4 opensmtpd=/usr/local/sbin/opensmtpd
# what a package is for, where its name does not say it
reason() {
  case $1 in
    gcc|libc6-dev) echo "the race detector, and gateway-pkcs11" ;;
    softhsm2) echo "the token of the PKCS#11 seal" ;;
    postfix*) echo "the mail servers at both ends of the line" ;;
    dovecot*) echo "the mailbox at the end of the line" ;;
    strace) echo "counts the calls that wait for the disk, in Postfix and in the gateway" ;;
    python3) echo "the reader of our notices that is not ours" ;;
    opendkim) echo "a milter that is not ours, which rejects, quarantines and wants to change headers" ;;
    swaks|libnet-ssleay-perl) echo "a client that is not ours" ;;
    isync) echo "mbsync, a mail client that is not ours, on the case mailbox" ;;
    haproxy) echo "the proxy whose PROXY headers we read" ;;
    lib*) echo "what Exim and OpenSMTPD need" ;;
    unbound|nsd|ldnsutils) echo "the judge of our DNSSEC validation, and its zones" ;;
    *) echo "end to end" ;;
  esac
}

have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing() { # packages of $peers that are not installed, one a line
  local entry
  for entry in $peers; do
    [ "${entry%:*}" != exim4 ] || command -v apt-get >/dev/null || continue
    if command -v dpkg-query >/dev/null; then have "${entry#*:}" || echo "${entry#*:}"
    else command -v "${entry%:*}" >/dev/null || echo "${entry#*:}"; fi
  done | sort -u
}

cannot() { # one line: what is missing, what it is for, why it cannot be installed
  local p list=
  for p in $1; do list+="${list:+, }$p ($(reason "$p"))"; done
  echo "cannot install $list: $2"
}

step_install() {
  local rc=0
  install_packages || rc=$?
  unpack Exim exim4-daemon-light "$exim" usr/sbin/exim4 Debian-exim /var/spool/exim4 || rc=$?
  unpack OpenSMTPD opensmtpd "$opensmtpd" usr/sbin/smtpd opensmtpd /var/lib/opensmtpd/empty opensmtpq || rc=$?
  return $rc
}

unpack() { # NAME PACKAGE TO FILE USER HOME [GROUP]: a mail server beside Postfix, and the users that it changes to
  local name=$1 package=$2 to=$3 file=$4 user=$5 home=$6 other=${7:-} dir rc=0
  [ -x "$to" ] && id "$user" >/dev/null 2>&1 && { echo "$name is there"; return 0; }
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "cannot unpack $name: not root on Debian"; return "$must"; }
  echo "unpacking $name"
  dir=$(mktemp -d); chmod 755 "$dir"
  (cd "$dir" && { apt-get -q download "$package" || { apt-get -q update && apt-get -q download "$package"; }; } && dpkg --fsys-tarfile "$package"_*.deb | tar -x "./$file" && install -m 755 "$file" "$to" &&
    install -d -m 755 "$home" &&
    for u in $user $other; do
      id "$u" || adduser --system --group --quiet --no-create-home --home "$home" --allow-bad-names "$u"
    done) >"$dir/log" 2>&1 || rc=$must
  [ -x "$to" ] || echo "cannot unpack $name: $(tail -n1 "$dir/log")"
  rm -rf "$dir"
  return $rc
}

install_packages() {
  local want log
  want=$(missing | paste -sd' ')
  [ -n "$want" ] || { echo "every package is installed"; return 0; }
  command -v apt-get >/dev/null || { cannot "$want" "this is not Debian: no apt-get"; return "$must"; }
  [ "$(id -u)" = 0 ] || { cannot "$want" "not root"; return "$must"; }
  echo "installing $want"
  log=$(mktemp)
  # A package must not start its daemon here: the tests start their own. (Only where nothing forbids it already.)
  local policy=/usr/sbin/policy-rc.d made=
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; }
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -q -o DPkg::Lock::Timeout=300)
  if ! { "${apt[@]}" update && echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections &&
         "${apt[@]}" install -y --no-install-recommends $want; } >"$log" 2>&1 </dev/null; then
    # one at a time, so that one that is not to be had does not take the others with it
    for p in $want; do "${apt[@]}" install -y --no-install-recommends "$p" >>"$log" 2>&1 </dev/null; done
  fi
  [ -z "$made" ] || rm -f $policy
  want=$(missing | paste -sd' ')
  if [ -n "$want" ]; then cannot "$want" "$(grep -m1 '^E: ' "$log" || tail -n1 "$log")"; rm -f "$log"; return "$must"; fi
  rm -f "$log"
}

# ---- the steps ----

step_format() {
  local f
  f=$(gofmt -l .) || return 1
  [ -z "$f" ] || { echo "gofmt would change:"; echo "$f"; return 1; }
}
step_vet() { go vet ./...; }
step_tidy() { go mod tidy -diff && go mod verify; }
step_staticcheck() { go tool staticcheck ./...; }

# The race detector needs cgo and so a C compiler; only where none is to be had do the tests run without it. The codecs are
# octets in, octets out and start nothing: theirs run without it, and under it wherever another package uses them. (A program
# under it lingers a second at its end by default, and the tests run hundreds.)
codecs='^dimegate/dmtp/(key|signet|record|message)$'
step_unit() {
  local race=(-race) rc=0
  command -v "$(go env CC)" >/dev/null || { race=(); echo "no C compiler: without the race detector"; [ "$must" = 0 ] || return 1; }
  go test -vet=off -shuffle=on -timeout 10m $(go list ./... | grep -E "$codecs") || rc=1
  GORACE="${GORACE:-} atexit_sleep_ms=50" go test "${race[@]}" -vet=off -shuffle=on -timeout 10m $(go list ./... | grep -vE "$codecs|^dimegate/cmd/lab$") || rc=1
  return $rc
}
step_quick() { go test -short -shuffle=on -timeout 3m ./...; } # what --fast runs in place of unit

# The conformance tests again, by themselves and counted: a run that meets no vector must not pass.
step_conformance() {
  local out n
  out=$(go test -vet=off -count=1 -v -run '^TestVectors' $(grep -rlE '^func TestVectors' --include='*_test.go' . | xargs -n1 dirname | sort -u) 2>&1) || { echo "$out" | grep -vE '^(=== |ok |\? )|no test files|no tests to run|--- PASS'; return 1; }
  n=$(grep -cE '^ *--- PASS' <<<"$out")
  [ "$n" -gt 0 ] || { echo "no conformance test ran"; return 1; }
  echo "$n conformance cases passed"
}

# Every fuzz target of the tree, found by name, a few seconds each. Now and then the go command takes the end of its own
# time for a failure ("context deadline exceeded", with no failing input): such a run counts for nothing and is made again.
step_fuzz() {
  local t=${FUZZTIME:-2s} pkg name rc=0 n=0
  while read -r pkg name; do
    fuzz "$t" "$pkg" "$name" || { lateness && fuzz "$t" "$pkg" "$name"; } || { echo "$pkg $name:"; cat "$tmp/fuzz"; rc=1; }
    n=$((n + 1))
  done < <(fuzz_targets)
  echo "$n fuzz targets, $t each"
  return $rc
}
fuzz() { go test -vet=off -run '^$' -fuzz "^$3\$" -fuzztime "$1" -fuzzminimizetime 1x "$2" >"$tmp/fuzz" 2>&1; }
lateness() { grep -qx ' *context deadline exceeded' "$tmp/fuzz" && ! grep -q 'Failing input' "$tmp/fuzz"; }
fuzz_targets() { # "package name" lines
  local dir
  grep -rlE '^func Fuzz[A-Z0-9_]\w*\(' --include='*_test.go' . | while read -r f; do
    dir=$(dirname "$f"); sed -nE 's/^func (Fuzz[A-Z0-9_][A-Za-z0-9_]*)\(.*/\1/p' "$f" | sed "s|^|$dir |"
  done | sort
}

step_endtoend() { go test -vet=off -count=1 -v -timeout 15m ./cmd/lab 2>&1 | grep -vE '^=== (RUN|PAUSE|CONT|NAME)'; }

# ---- one after the other ----

must=0; [ "${CI:-}" = true ] && must=1
all="install format vet tidy staticcheck unit conformance fuzz endtoend"
case ${1:-} in
  --fast) steps="format vet tidy quick" ;;
  --install) steps=install ;;
  -h|--help) sed -n '2,10p' "$0"; exit 0 ;;
  -*) echo "test.sh: unknown option $1: see ./test.sh --help" >&2; exit 2 ;;
  '') steps=$all ;;
  *) steps=$* ;;
esac
for s in $steps; do declare -F "step_$s" >/dev/null || { echo "test.sh: no step $s; there are: $all quick" >&2; exit 2; }; done
command -v go >/dev/null || { echo "test.sh: Go is not on the PATH: install Go 1.26 or newer" >&2; exit 2; }

tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
passed=() failed=()
for s in $steps; do
  echo "=== $s"
  SECONDS=0
  if "step_$s"; then passed+=("$s"); echo "--- $s passed in $SECONDS s"; else failed+=("$s"); echo "--- $s FAILED after $SECONDS s"; fi
done
[ ${#failed[@]} = 0 ] || echo "failed: ${failed[*]}"
echo "steps: ${#passed[@]} passed, ${#failed[@]} failed"
[ ${#failed[@]} = 0 ]
