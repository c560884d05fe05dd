// Runs the lockstep program as a user does.
#ifndef LOCKSTEP_TOOLS_TESTS_SANDBOX_H_
#define LOCKSTEP_TOOLS_TESTS_SANDBOX_H_

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "lockstep/tests/catch.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {

/// How the program ended, and what it wrote.
struct Outcome {
  int exit_code;
  std::string out;
  std::string err;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A folder of its own, in which the lockstep program is run.
class Sandbox {
 public:
  Sandbox() {
    path_ = (std::filesystem::temp_directory_path() / "lockstep-cli-XXXXXX").string();
    LOCKSTEP_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~Sandbox() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

  /// `to` is where stdout goes, as the shell has it; `environment` is set for the program alone.
  Outcome Run(const std::string& arguments, const std::string& to = ">out",
              const std::string& environment = "") const {
    // The names of both folders may hold spaces.
    const std::string command =
        absl::StrCat("cd '", path_, "' && ", environment, " '", LOCKSTEP_PROGRAM, "' ", arguments,
                     " 2>err </dev/null ", to);
    const int how = std::system(command.c_str());
    return {WIFEXITED(how) ? WEXITSTATUS(how) : -1, ReadFile(path_ + "/out"),
            ReadFile(path_ + "/err")};
  }

 private:
  std::string path_;
};

/// The JSON that the program wrote; it ended well.
inline nlohmann::json Document(const Outcome& outcome) {
  INFO(outcome.out << outcome.err);
  REQUIRE(outcome.exit_code == 0);
  auto document = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  REQUIRE_FALSE(document.is_discarded());
  return document;
}

/// One line on stderr that says `part`, nothing on stdout, exit code 2.
inline void CheckRefused(const Sandbox& sandbox, const std::string& arguments,
                         const std::string& part) {
  const Outcome outcome = sandbox.Run(arguments);
  INFO(arguments << "\n" << outcome.out << outcome.err);
  CHECK(outcome.exit_code == 2);
  CHECK(outcome.out.empty());
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  CHECK(outcome.err.find(part) != std::string::npos);
}

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_TESTS_SANDBOX_H_
