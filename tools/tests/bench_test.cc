// `lockstep bench` on the CPU: it measures, and its results are right.
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

TEST_CASE("bench checks every result, of every collective, type and reduction") {
  const Sandbox sandbox;
  for (const char* what :
       {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all"}) {
    for (const char* flags :
         {"", "-d bf16 -o avg", "-d int64 -o max --in_place", "-d float64 -o prod"}) {
      const Outcome outcome = sandbox.Run(absl::StrCat(
          "bench ", what, " --devices=cpu --ranks=3 -b 1K -e 64K -f 8 -n 3 -w 1 --format=json ",
          flags));
      INFO(what << " " << flags);
      const auto document = Document(outcome);
      REQUIRE(document["rows"].size() == 3);
      for (const auto& row : document["rows"]) {
        CHECK(row["wrong"] == 0);
        CHECK(row["p50_us"] > 0);
      }
    }
  }
  for (const char* what : {"barrier", "executor"}) {
    const Outcome outcome =
        sandbox.Run(absl::StrCat("bench ", what, " --devices=cpu --ranks=2 -n 200"));
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.out.find("time / ours") != std::string::npos);
  }
}

TEST_CASE("bench says nothing of results that it was not to check") {
  const Sandbox sandbox;
  const std::string bench = "bench all_reduce --devices=cpu --ranks=2 -b 1K -e 1K -n 1 ";
  CHECK(sandbox.Run(bench + "-c 0").out.find("N/A\n") != std::string::npos);
  CHECK(sandbox.Run(bench).out.find(" 0\n") != std::string::npos);
  CHECK_FALSE(Document(sandbox.Run(bench + "-c 0 --format=json"))["rows"][0].contains("wrong"));
  CHECK(Document(sandbox.Run(bench + "--format=json"))["rows"][0]["wrong"] == 0);
}

TEST_CASE("bench runs several groups at once, and beside busy threads") {
  const Sandbox sandbox;
  for (const char* what : {"barrier", "all_reduce -b 1K -e 1K"}) {
    const Outcome outcome = sandbox.Run(absl::StrCat(
        "bench ", what, " --devices=cpu --ranks=2 --groups=3 --busy=1 -n 100 --format=json"));
    INFO(what << "\n" << outcome.out << outcome.err);
    REQUIRE(outcome.exit_code == 0);
    const auto document = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
    REQUIRE_FALSE(document.is_discarded());
    CHECK(document["groups"] == 3);
    CHECK(document["busy"] == 1);
  }
  const Outcome table =
      sandbox.Run("bench all_reduce --devices=cpu --ranks=2 --groups=2 --pin -b 64 -e 64 -n 20");
  CHECK(table.out.find("# 2 groups at once, the slowest") != std::string::npos);
  CHECK(table.out.find("# pinning: ") != std::string::npos);
  CHECK(sandbox.Run("bench executor --devices=cpu --ranks=2 --groups=2").exit_code == 2);
}

TEST_CASE("bench startup tells what each step to a first sum takes, at first and later") {
  const Sandbox sandbox;
  const Outcome outcome = sandbox.Run("bench startup --devices=cpu --ranks=3 --format=json");
  const auto document = Document(outcome);
  CHECK(document["ranks"] == 3);
  REQUIRE(document["rows"].size() == 3);
  for (const auto& row : document["rows"]) {
    CHECK(row["first_ms"] > 0);
    CHECK(row["later_ms"] > 0);
  }
  CHECK(sandbox.Run("bench startup --devices=cpu --ranks=2").exit_code == 0);
}

TEST_CASE("bench mlp checks every element, at sizes that divide and at those that do not") {
  const Sandbox sandbox;
  for (const char* flags : {"--ranks=2 --hidden=64 --inner=256 --rows=8,1 -d float32",
                            "--ranks=3 --hidden=33 --inner=50 --rows=5,2", "--rows=3,4 -d float16",
                            "--ranks=4 --hidden=7 --inner=2 --rows=1,9 -d float64"}) {
    const Outcome outcome = sandbox.Run(absl::StrCat(
        "bench mlp --devices=cpu --hidden=40 --inner=80 -n 2 -w 1 --format=json ", flags));
    INFO(flags);
    const auto document = Document(outcome);
    REQUIRE(document["rows"].size() == 2);
    for (const auto& row : document["rows"]) {
      CHECK(row["wrong"] == 0);
      CHECK(row["ours_us"] > 0);
      CHECK(row["products_us"] > 0);
      CHECK(row["forward_backward_us"] > 0);
    }
  }
  const Outcome table =
      sandbox.Run("bench mlp --devices=cpu --ranks=2 --hidden=16 --inner=32 --rows=4");
  CHECK(table.exit_code == 0);
  CHECK(table.out.find("bfloat16, 2 ranks") != std::string::npos);
  CHECK(table.out.find("ours / products") != std::string::npos);
}

}  // namespace
}  // namespace lockstep::tools
