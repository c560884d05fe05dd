// The command line: one argument a line, for the verb that the first byte says.
#include <cstddef>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "lockstep/tools/lockstep/flags.h"

using namespace lockstep::tools;

namespace {

// In one line, and of a kind that main() turns into exit code 2.
void CheckError(const absl::Status& status) {
  if (status.ok()) return;
  LOCKSTEP_CHECK(absl::IsInvalidArgument(status) || absl::IsUnavailable(status));
  LOCKSTEP_CHECK(!absl::StrContains(status.message(), "\n"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::vector<std::string> arguments = absl::StrSplit(text, '\n');
  switch (data[0] % 3) {
    case 0:
      CheckError(ParseFlags(arguments, kTrainFlags).status());
      CheckError(TrainOptionsFromFlags().status());
      break;
    case 1:
      CheckError(ParseFlags(arguments, kBenchFlags).status());
      CheckError(BenchOptionsFromFlags().status());
      break;
    default:
      CheckError(ParseFlags(arguments, kInfoFlags).status());
      CheckError(ExecutorOptionsFromFlags().status());
  }
  return 0;
}
