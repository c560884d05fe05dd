# Test cases by their tags, for scripts that count with tally.sh: source both.

# list_cases PROGRAM TAGS: a line for each case that has them, which is the filter that selects it.
list_cases() {
  local list
  # As Catch2 2 does it, whose exit status is their number, or 3.
  if ! list=$("$1" --list-test-names-only "$2" 2>/dev/null) && [ -z "$list" ]; then
    list=$("$1" --list-tests --verbosity quiet "$2")
  fi
  [ -z "$list" ] || sed 's/[][,\\]/\\&/g' <<<"$list"
}

# run_cases NAME LIMIT_S COMMAND ...: adds one and prints a line, with the output if it fails.
run_cases() {
  local name=$1 limit=$2 output start=$SECONDS
  shift 2
  if ! output=$(timeout -k 5 "$limit" "$@" 2>&1) || grep -q '^No test' <<<"$output"; then
    tail -n 40 <<<"$output"
    fail "$name"
  elif ! grep -q 'tests passed' <<<"$output"; then  # Catch2 counts no assertion
    echo "skipped $name: nothing to test on these devices"
  else
    pass "$name: $(grep 'tests passed' <<<"$output"), $((SECONDS - start)) s"
  fi
}
