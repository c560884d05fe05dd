#include "lockstep/tools/lockstep/flag_values.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace lockstep::tools {

bool IsWhole(absl::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

bool ParseReal(absl::string_view text, int above, int highest, double& value, std::string& error) {
  const bool number = absl::SimpleAtod(text, &value) && !std::isnan(value);
  if (number && std::isfinite(value) && value > above && (highest == 0 || value <= highest))
    return true;
  error = absl::StrCat(number ? "is out of range" : "is not a number", ": it must be above ", above,
                       " and ", highest == 0 ? "finite" : absl::StrCat("at most ", highest));
  return false;
}

std::string AsGiven(absl::string_view name, absl::string_view value) {
  const bool letter = name.size() == 1;
  // On one line, whatever was given.
  return absl::StrCat(letter ? "-" : "--", name, letter ? " " : "=", absl::Utf8SafeCEscape(value));
}

}  // namespace lockstep::tools
