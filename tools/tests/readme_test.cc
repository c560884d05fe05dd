// The README's example is a program that is built and run here.
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "lockstep/tests/catch.h"

namespace lockstep::tools {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The first C++ block.
std::string FirstBlock(const std::string& markdown) {
  const std::string open = "```cpp\n";
  const std::size_t begin = markdown.find(open);
  if (begin == std::string::npos) return "";
  const std::size_t end = markdown.find("```", begin + open.size());
  return markdown.substr(begin + open.size(), end - begin - open.size());
}

TEST_CASE("the README's example is tools/examples/quickstart.cc") {
  const std::string program = ReadFile(LOCKSTEP_SOURCE_DIR "/tools/examples/quickstart.cc");
  const std::string shown = FirstBlock(ReadFile(LOCKSTEP_SOURCE_DIR "/README.md"));
  REQUIRE(shown.size() > 500);
  // What comes after is the main that prints a status.
  CHECK(program.substr(0, shown.size()) == shown);
}

TEST_CASE("the README's example runs") {
  FILE* pipe = popen("'" LOCKSTEP_QUICKSTART "'", "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 200> line{};
  REQUIRE(std::fgets(line.data(), line.size(), pipe) != nullptr);
  CHECK(std::string(line.data()).find("float32 [8, 10] on cpu, first element ") == 0);
  CHECK(pclose(pipe) == 0);
}

}  // namespace
}  // namespace lockstep::tools
