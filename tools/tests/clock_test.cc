// Intervals are not the wall clock's: it may be put back.
#include <filesystem>

#include "lockstep/tools/tests/image_set.h"
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

TEST_CASE("no source asks the wall clock") {
  const std::filesystem::path root = LOCKSTEP_SOURCE_DIR;
  int read = 0;
  for (const char* folder : {"runtime", "collective", "layers", "tests", "tools"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string name = entry.path().filename().string();
      const std::string kind = entry.path().extension().string();
      const bool source =
          kind == ".cc" || kind == ".h" || kind == ".cu" || kind == ".cuh" || kind == ".py";
      // Those put it back themselves.
      if (!source || name == "late_rank_test.cc" || name == "clock_test.cc" ||
          name == "clock_back.cc")
        continue;
      ++read;
      const std::string text = ReadFile(entry.path().string());
      for (const char* word :
           {"absl::Now", "GetCurrentTimeNanos", "system_clock", "high_resolution_clock",
            "gettimeofday", "CLOCK_REALTIME", "utc_clock", "timespec_get", "std::time(", "ftime(",
            "time.time(", "datetime.now"}) {
        INFO(entry.path() << " says " << word);
        CHECK(text.find(word) == std::string::npos);
      }
    }
  }
  CHECK(read > 100);
}

#ifdef LOCKSTEP_CLOCK_BACK
TEST_CASE("rates are above zero while the wall clock is put back by an hour at every other look") {
  const Sandbox sandbox;
  WriteImageSet(sandbox.path(), "train", 200, 1);
  WriteImageSet(sandbox.path(), "t10k", 50, 2);
  const Outcome outcome = sandbox.Run(
      "train --devices=cpu --ranks=2 --hidden=8 --batch=20 --epochs=4 --format=json --data=.",
      ">out", "LD_PRELOAD='" LOCKSTEP_CLOCK_BACK "'");
  for (const auto& epoch : Document(outcome)["epochs"]) {
    CHECK(epoch["samples_per_s"] > 0);
    for (const char* share : {"computing", "reducing", "waiting"}) {
      CHECK(epoch[share] >= 0);
      CHECK(epoch[share] <= 1);
    }
  }
}
#endif

}  // namespace
}  // namespace lockstep::tools
