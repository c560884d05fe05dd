# For scripts that end with the sum "N passed, N failed": source this.
passed=0
failed=0

# count PASSED FAILED adds both; pass TEXT and fail TEXT add one and print a line.
count() {
  passed=$((passed + $1))
  failed=$((failed + $2))
}
pass() { count 1 0 && echo "passed  $1"; }
fail() { count 0 1 && echo "FAILED  $1"; }

# The sum, and an exit status that says whether nothing failed.
finish() {
  echo "$passed passed, $failed failed"
  exit $((failed > 0))
}
