// The lockstep command.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/check/check.h"
#include "lockstep/tools/lockstep/flags.h"
#include "lockstep/tools/lockstep/info.h"
#include "lockstep/tools/lockstep/train/train.h"

namespace lockstep::tools {
namespace {

using Arguments = std::vector<std::string>;

absl::Status NoArguments(const Arguments& others) {
  if (others.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", others.front(), "\" is not a flag, and it takes nothing else"));
}

absl::Status RunTrain(const Arguments& others) {
  LOCKSTEP_RETURN_IF_ERROR(NoArguments(others));
  LOCKSTEP_ASSIGN_OR_RETURN(const TrainOptions options, TrainOptionsFromFlags());
  return Train(options);
}

absl::Status RunBench(const Arguments& others) {
  if (others.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("say what to measure: one of ", absl::StrJoin(kBenchNames, ", ")));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const BenchOptions options, BenchOptionsFromFlags());
  return Bench(others.front(), options);
}

absl::Status RunCheck(const Arguments& others) {
  LOCKSTEP_RETURN_IF_ERROR(NoArguments(others));
  LOCKSTEP_ASSIGN_OR_RETURN(const CheckOptions options, CheckOptionsFromFlags());
  return Check(options);
}

absl::Status RunInfo(const Arguments& others) {
  LOCKSTEP_RETURN_IF_ERROR(NoArguments(others));
  LOCKSTEP_ASSIGN_OR_RETURN(const Executor::Options options, ExecutorOptionsFromFlags());
  return Info(options);
}

struct Verb {
  const char* name;
  const char* arguments;
  const char* summary;
  const std::vector<const char*>& flags;
  absl::Status (*run)(const Arguments&);
};

const Verb kVerbs[] = {
    {"train", "", "train a tensor-parallel classifier on Fashion-MNIST", kTrainFlags, RunTrain},
    {"bench", " WHAT",
     "time a collective, an MLP, the barrier, the executor or a start, and check the results",
     kBenchFlags, RunBench},
    {"check", "", "see whether groups survive what goes wrong, and how fast", kCheckFlags,
     RunCheck},
    {"info", "", "say what this build and this machine offer", kInfoFlags, RunInfo},
};

std::string Usage() {
  std::string text = "lockstep VERB [FLAGS]\n\n";
  for (const Verb& verb : kVerbs)
    absl::StrAppend(&text, "  ", verb.name, verb.arguments, ": ", verb.summary, "\n");
  return absl::StrCat(
      text,
      "\n`lockstep VERB --help` lists a verb's flags; of one that is given twice the last holds.\n"
      "`lockstep --version` tells the version.\n"
      "\nResults go to stdout, everything else to stderr. Exit codes:\n"
      "  0: done, and all that was checked is right\n"
      "  1: a result is wrong, something failed, or the results could not be written\n"
      "  2: this cannot be done as asked: a wrong flag, file or device; stderr says what is "
      "right\n");
}

// Bad input is for the caller to correct; anything else went wrong here.
int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  const bool bad_input =
      absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsUnavailable(status);
  return bad_input ? 2 : 1;
}

int RunVerb(const Verb& verb, const Arguments& arguments) {
  for (const std::string& argument : arguments) {
    if (argument != "--help" && argument != "-h") continue;
    absl::PrintF("lockstep %s%s [FLAGS]: %s\n\n%s", verb.name, verb.arguments, verb.summary,
                 DescribeFlags(verb.flags));
    return 0;
  }
  auto others = ParseFlags(arguments, verb.flags);
  const absl::Status status = others.ok() ? verb.run(*others) : others.status();
  if (!status.ok()) absl::FPrintF(stderr, "lockstep %s: %s\n", verb.name, status.message());
  return ExitCode(status);
}

int Main(const Arguments& arguments) {
  if (arguments.empty() || arguments[0] == "help" || arguments[0] == "--help" ||
      arguments[0] == "-h") {
    std::fputs(Usage().c_str(), arguments.empty() ? stderr : stdout);
    return arguments.empty() ? 2 : 0;
  }
  if (arguments[0] == "--version" || arguments[0] == "version") {
    absl::PrintF("lockstep %s\n", Version());
    return 0;
  }
  for (const Verb& verb : kVerbs) {
    if (arguments[0] == verb.name) return RunVerb(verb, {arguments.begin() + 1, arguments.end()});
  }
  absl::FPrintF(stderr,
                "lockstep: unknown verb \"%s\"; there are train, bench, check, info and help\n",
                arguments[0]);
  return 2;
}

// If a standard stream is closed, the next file opened would get its number, and what is meant for
// stdout would end up in that file. This takes the number with a file that refuses writes.
void HoldStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) == -1) static_cast<void>(open("/dev/null", O_RDONLY));
  }
}

// Results that were not written are an error, however well the rest went.
int Finish(int exit_code) {
  const bool lost = std::ferror(stdout) != 0;
  const bool closed = std::fclose(stdout) == 0;
  if (closed && !lost) return exit_code;
  absl::FPrintF(stderr, "lockstep: the results could not be written to stdout%s%s\n",
                closed ? "" : ": ", closed ? "" : std::strerror(errno));
  return exit_code == 0 ? 1 : exit_code;
}

}  // namespace
}  // namespace lockstep::tools

int main(int argc, char* argv[]) {
  lockstep::tools::HoldStandardStreams();
  return lockstep::tools::Finish(lockstep::tools::Main({argv + 1, argv + argc}));
}
