// A user who compiles without exceptions and RTTI and with many warnings: every public header, and
// every public macro wherever a statement may stand.
#include <map>
#include <memory>
#include <utility>

#include "every_header.h"

namespace strict_user {
namespace {

absl::StatusOr<int> Number() { return 1; }
absl::StatusOr<std::unique_ptr<int>> Owned() { return std::make_unique<int>(1); }
template <typename A, typename B>
absl::StatusOr<std::pair<A, B>> Pair() {
  return std::pair<A, B>();
}

struct Holder {
  absl::Status Set(int turn) {
    LOCKSTEP_ASSIGN_OR_RETURN((*this).member, Number());
    LOCKSTEP_ASSIGN_OR_RETURN((members[turn]), Number());
    LOCKSTEP_ASSIGN_OR_RETURN(members[turn], Number());
    return absl::OkStatus();
  }
  int member = 0;
  std::map<int, int> members;
};

absl::StatusOr<int> Everywhere(int turns) {
  int x = 0;
  if (turns > 1) LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
  if (turns > 2)
    LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
  else
    LOCKSTEP_RETURN_IF_ERROR(Holder().Set(turns));
  for (int i = 0; i < turns; ++i) LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
  while (x < turns) LOCKSTEP_RETURN_IF_ERROR(Holder().Set(++x));
  do LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
  while (x > 1);
  switch (turns) {
    case 1:
      LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
      break;
    case 2:
      LOCKSTEP_RETURN_IF_ERROR(Holder().Set(2));
      [[fallthrough]];
    default:
      LOCKSTEP_ASSIGN_OR_RETURN(x, Number());
  }
  LOCKSTEP_ASSIGN_OR_RETURN((const auto [a, b]), Pair<int, int>());
  LOCKSTEP_ASSIGN_OR_RETURN((std::pair<int, long> pair), Pair<int, long>());
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<int> owned, Owned());
  LOCKSTEP_ASSIGN_OR_RETURN(const auto& kept, Owned());
  LOCKSTEP_ASSIGN_OR_RETURN(auto&& taken, [&]() -> absl::StatusOr<int> {
    LOCKSTEP_RETURN_IF_ERROR([&]() -> absl::Status {
      LOCKSTEP_ASSIGN_OR_RETURN(const int inner, Number());
      LOCKSTEP_CHECK(inner == 1);
      return absl::OkStatus();
    }());
    LOCKSTEP_ASSIGN_OR_RETURN(const int outer, Number());
    return outer;
  }());
  LOCKSTEP_CHECK(std::is_same_v<decltype(a), const int>);
  return x + a + b + pair.first + *owned + *kept + taken;
}

}  // namespace

absl::Status Use() { return Everywhere(3).status(); }

}  // namespace strict_user
