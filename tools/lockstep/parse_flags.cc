// The grammar of the command line; which flags there are is in flags.cc.
#include <algorithm>

#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "lockstep/tools/lockstep/flag_values.h"
#include "lockstep/tools/lockstep/flags.h"

namespace lockstep::tools {
namespace {

// The edit distance of two words.
std::size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}

absl::Status Unknown(absl::string_view name, absl::Span<const char* const> allowed) {
  std::string text = absl::StrCat("unknown flag --", name);
  if (!allowed.empty()) {
    const char* const nearest = *std::min_element(
        allowed.begin(), allowed.end(),
        [&](const char* a, const char* b) { return Distance(name, a) < Distance(name, b); });
    if (Distance(name, nearest) <= 3) absl::StrAppend(&text, "; did you mean --", nearest, "?");
  }
  return absl::InvalidArgumentError(text);
}

bool IsSwitch(const absl::CommandLineFlag& flag) { return flag.IsOfType<bool>(); }

absl::Status Set(absl::CommandLineFlag& flag, absl::string_view value) {
  const auto refused = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(AsGiven(flag.Name(), value), why));
  };
  // Abseil would take an empty value of an optional flag for none.
  if (value.empty()) return refused(absl::StrCat(": it needs a value: ", flag.Help()));
  std::string error;
  if (flag.ParseFrom(value, &error)) return absl::OkStatus();
  if (IsSwitch(flag)) return refused(": it must be true or false");
  // The type's own message (flag_values.h) follows Abseil's.
  const std::size_t own = error.rfind("; ");
  const bool ours = own != std::string::npos;
  return refused(absl::StrCat(ours ? " " : ": ", error.substr(ours ? own + 2 : 0)));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(absl::Span<const std::string> arguments,
                                                    absl::Span<const char* const> allowed) {
  const auto is_allowed = [&](absl::string_view name) {
    return std::find(allowed.begin(), allowed.end(), name) != allowed.end();
  };
  std::vector<std::string> others;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view name = arguments[i];
    if (!absl::ConsumePrefix(&name, "-") || name.empty()) {
      others.push_back(arguments[i]);
      continue;
    }
    absl::ConsumePrefix(&name, "-");
    absl::optional<std::string> value;
    if (const std::size_t equals = name.find('='); equals != absl::string_view::npos) {
      value = std::string(name.substr(equals + 1));
      name = name.substr(0, equals);
    }
    if (absl::string_view positive = name;
        !is_allowed(name) && absl::ConsumePrefix(&positive, "no") && is_allowed(positive) &&
        IsSwitch(*absl::FindCommandLineFlag(positive)) && !value.has_value()) {
      name = positive;
      value = "false";
    }
    if (!is_allowed(name)) return Unknown(name, allowed);
    absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(name);
    // -c 0, as nccl-tests has it; a switch of more letters needs no value.
    if (!value.has_value() && IsSwitch(*flag) && name.size() > 1) value = "true";
    if (!value.has_value()) {
      if (i + 1 == arguments.size())
        return absl::InvalidArgumentError(
            absl::StrCat(name.size() == 1 ? "-" : "--", name, " needs a value"));
      value = arguments[++i];
    }
    LOCKSTEP_RETURN_IF_ERROR(Set(*flag, *value));
  }
  return others;
}

std::string DescribeFlags(absl::Span<const char* const> flags) {
  std::string text;
  for (const char* name : flags) {
    const absl::CommandLineFlag& flag = *absl::FindCommandLineFlag(name);
    std::string line = absl::StrCat("  --", name);
    line.resize(std::max<std::size_t>(line.size() + 1, 20), ' ');
    absl::StrAppend(&text, line, flag.Help());
    if (!flag.DefaultValue().empty()) absl::StrAppend(&text, " [", flag.DefaultValue(), "]");
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace lockstep::tools
