#include "lockstep/tests/harness/child_process.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include "absl/strings/match.h"
#include "lockstep/tests/harness/stacks.h"

namespace lockstep::testing {
namespace {

// The child's report: its status code, then its message.
[[noreturn]] void BeChild(int report, absl::FunctionRef<absl::Status()> body) {
  absl::Status status = absl::OkStatus();
  try {
    status = body();
  } catch (const std::exception& thrown) {
    status = absl::InternalError(absl::StrCat("the test threw: ", thrown.what()));
  } catch (...) {
    // The unwinding of a thread that ends itself is no exception, and has to go on.
    if (std::current_exception() == nullptr) throw;
    status = absl::InternalError("the test threw something that is no std::exception");
  }
  const std::string text = absl::StrCat(static_cast<int>(status.code()), "\n", status.message());
  const char* at = text.data();
  for (std::size_t left = text.size(); left > 0;) {
    const ssize_t written = write(report, at, left);
    if (written < 0 && errno != EINTR) break;
    if (written > 0) at += written, left -= static_cast<std::size_t>(written);
  }
  close(report);
  // exit rather than _exit: the leak checker and the race detector speak at exit.
  std::exit(0);
}

// What the child wrote until it closed the pipe, or until the time was over.
bool ReadUntil(int report, std::chrono::steady_clock::time_point deadline, std::string& text) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd entry{.fd = report, .events = POLLIN, .revents = 0};
    const int ready =
        poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 60000)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(report, buffer, sizeof(buffer));
    if (got == 0) return true;
    if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
  }
}

// `how` is -1 if nobody knows.
bool AwaitExit(pid_t child, std::chrono::steady_clock::time_point deadline, int& how) {
  for (;;) {
    const pid_t ended = waitpid(child, &how, WNOHANG);
    if (ended == child) return true;
    if (ended < 0 && errno != EINTR) {
      how = -1;
      return true;
    }
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

absl::Status Describe(int how, const std::string& report) {
  if (how == -1) {
    return absl::InternalError(absl::StrCat(
        "how the child ended is not known, as where SIGCHLD is ignored; it had reported: ",
        report));
  }
  if (WIFSIGNALED(how)) {
    return absl::InternalError(absl::StrCat("the child died of ", strsignal(WTERMSIG(how)),
                                            "; it had reported: ", report));
  }
  const std::size_t line_end = report.find('\n');
  if (WEXITSTATUS(how) != 0 || line_end == std::string::npos) {
    return absl::InternalError(
        absl::StrCat("the child exited with ", WEXITSTATUS(how), "; it had reported: ", report));
  }
  return absl::Status(static_cast<absl::StatusCode>(std::atoi(report.c_str())),
                      report.substr(line_end + 1));
}

}  // namespace

absl::Status RunInChild(absl::Duration limit, absl::FunctionRef<absl::Status()> body) {
  if (limit <= absl::ZeroDuration() || limit == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("RunInChild: limit is ",
                                                   absl::FormatDuration(limit),
                                                   "; it must be finite, and more than 0"));
  }
  int ends[2];
  if (pipe(ends) != 0) return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  if (child == 0) {
    close(ends[0]);
    BeChild(ends[1], body);
  }
  close(ends[1]);
  // Within what a clock can count.
  const auto deadline = std::chrono::steady_clock::now() +
                        absl::ToChronoNanoseconds(std::min(limit, absl::Hours(24 * 365)));
  std::string report;
  int how = 0;
  const bool in_time = ReadUntil(ends[0], deadline, report) && AwaitExit(child, deadline, how);
  close(ends[0]);
  if (in_time) return Describe(how, report);
  const std::string stacks = StacksOf(child);
  kill(child, SIGKILL);
  waitpid(child, &how, 0);
  return absl::DeadlineExceededError(absl::StrCat(
      "the child was not done within ", absl::FormatDuration(limit), "; its threads:\n", stacks));
}

absl::Status Expect(bool condition, absl::string_view text) {
  return condition ? absl::OkStatus() : absl::InternalError(text);
}

absl::Status ExpectStatus(const absl::Status& status, absl::StatusCode code,
                          absl::string_view part) {
  if (status.code() == code && absl::StrContains(status.message(), part)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("expected ", absl::StatusCodeToString(code), " with \"",
                                          part, "\", found ", status.ToString()));
}

}  // namespace lockstep::testing
