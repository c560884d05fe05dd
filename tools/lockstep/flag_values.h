// Numbers on the command line that know their range, and name it when they are refused.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_FLAG_VALUES_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_FLAG_VALUES_H_

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lockstep::tools {

/// Whether this is digits, however many, behind an optional sign.
bool IsWhole(absl::string_view text);

/// Reads a whole number. Otherwise `error` says what is wrong, to be put behind the text: "is not a
/// number: ..." or "is out of range: ...", with the range.
template <typename T>
bool ParseWhole(absl::string_view text, T lowest, T highest, T& value, std::string& error) {
  const bool whole = IsWhole(text);
  if (whole && absl::SimpleAtoi(text, &value) && value >= lowest && value <= highest) return true;
  error = absl::StrCat(
      whole ? "is out of range: it must be" : "is not a number: it must be a whole one", " from ",
      lowest, " to ", highest);
  return false;
}

/// As ParseWhole, for a finite number above `above` and, unless that is 0, not above `highest`.
bool ParseReal(absl::string_view text, int above, int highest, double& value, std::string& error);

/// A flag's whole number from kLowest to kHighest.
template <typename T, T kLowest, T kHighest>
struct Whole {
  T value = kLowest;

  friend bool AbslParseFlag(absl::string_view text, Whole* number, std::string* error) {
    return ParseWhole(text, kLowest, kHighest, number->value, *error);
  }
  friend std::string AbslUnparseFlag(Whole number) { return absl::StrCat(number.value); }
};

/// A flag's finite number above kAbove, and not above kHighest unless that is 0.
template <int kAbove, int kHighest = 0>
struct Real {
  double value = kAbove;

  friend bool AbslParseFlag(absl::string_view text, Real* number, std::string* error) {
    return ParseReal(text, kAbove, kHighest, number->value, *error);
  }
  friend std::string AbslUnparseFlag(Real number) { return absl::StrCat(number.value); }
};

/// "--name=value", or "-n value", as on the command line: how every message begins.
std::string AsGiven(absl::string_view name, absl::string_view value);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_FLAG_VALUES_H_
