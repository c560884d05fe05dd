// RunInChild: what comes back from a child, however it ends.
#include "lockstep/tests/harness/child_process.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "lockstep/tests/catch.h"
#include "lockstep/tests/harness/stacks.h"

namespace lockstep::testing {
namespace {

using Code = absl::StatusCode;
constexpr absl::Duration kLong = absl::Seconds(200);

TEST_CASE("a child's status comes back with its code and its whole text") {
  REQUIRE_OK(RunInChild(kLong, [] { return absl::OkStatus(); }));
  const absl::Status status =
      RunInChild(kLong, [] { return absl::NotFoundError("first line\nsecond line\n"); });
  CHECK(status == absl::NotFoundError("first line\nsecond line\n"));
  // More than a pipe holds.
  const std::string text(1 << 20, 'x');
  CHECK(RunInChild(kLong, [&] { return absl::AbortedError(text + "end"); }) ==
        absl::AbortedError(text + "end"));
}

TEST_CASE("a child's memory is its own") {
  int number = 1;
  REQUIRE_OK(RunInChild(kLong, [&] {
    number = 2;
    return Expect(number == 2, "not written");
  }));
  CHECK(number == 1);
}

TEST_CASE("a child that throws is told by what it threw") {
  const absl::Status status =
      RunInChild(kLong, []() -> absl::Status { throw std::runtime_error("a reason"); });
  CHECK(status == absl::InternalError("the test threw: a reason"));
  CHECK(RunInChild(kLong, []() -> absl::Status { throw 7; }) ==
        absl::InternalError("the test threw something that is no std::exception"));
}

TEST_CASE("a child that dies is told by its signal, one that exits by its code") {
  const auto run = [](absl::FunctionRef<void()> end) {
    return RunInChild(kLong, [&] {
      end();
      return absl::OkStatus();
    });
  };
  const absl::Status killed = run([] { raise(SIGKILL); });
  CHECK(killed.code() == Code::kInternal);
  CHECK(Says(killed, "the child died of Killed"));
  const absl::Status exited = run([] { _exit(3); });
  CHECK(exited.code() == Code::kInternal);
  CHECK(Says(exited, "the child exited with 3"));
  const absl::Status silent = run([] { _exit(0); });
  CHECK(silent.code() == Code::kInternal);
  CHECK(Says(silent, "the child exited with 0; it had reported: "));
  // As a leak checker does, which speaks when the test has passed.
  const absl::Status late = run([] { std::atexit([] { _exit(23); }); });
  CHECK(late.code() == Code::kInternal);
  CHECK(Says(late, "the child exited with 23"));
}

TEST_CASE("how a child ended is not guessed where nobody is told") {
  std::signal(SIGCHLD, SIG_IGN);
  const absl::Status status = RunInChild(kLong, [] { return absl::OkStatus(); });
  std::signal(SIGCHLD, SIG_DFL);
  CHECK(status.code() == Code::kInternal);
  CHECK(Says(status, "how the child ended is not known"));
}

TEST_CASE("a child that is not done in time is killed, whether it has reported or not") {
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status hung = RunInChild(absl::Milliseconds(100), [] {
    for (;;) pause();
    return absl::OkStatus();
  });
  CHECK(hung.code() == Code::kDeadlineExceeded);
  CHECK(Says(hung, "the child was not done within 100ms; its threads:\n"));
  CHECK((Says(hung, "pause") || Says(hung, "(no stacks: ")));
  const absl::Status after = RunInChild(absl::Milliseconds(100), [] {
    std::atexit([] {
      for (;;) pause();
    });
    return absl::OkStatus();
  });
  CHECK(after.code() == Code::kDeadlineExceeded);
  CHECK(std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(200));
}

TEST_CASE("a limit that is not positive and finite is refused, and nothing runs") {
  for (const absl::Duration limit :
       {absl::ZeroDuration(), absl::Seconds(-1), absl::InfiniteDuration()}) {
    const absl::Status status = RunInChild(limit, [] { return absl::OkStatus(); });
    INFO(absl::FormatDuration(limit));
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(Says(status, "it must be finite, and more than 0"));
  }
  REQUIRE_OK(RunInChild(absl::Hours(10'000'000), [] { return absl::OkStatus(); }));
}

TEST_CASE("bodies say what they expect") {
  REQUIRE_OK(Expect(true, "never"));
  CHECK(Expect(false, "a text") == absl::InternalError("a text"));
  const absl::Status status = absl::AbortedError("the cause");
  REQUIRE_OK(ExpectStatus(status, Code::kAborted, "cause"));
  CHECK(ExpectStatus(status, Code::kInternal, "cause") ==
        absl::InternalError("expected INTERNAL with \"cause\", found ABORTED: the cause"));
  CHECK(Says(ExpectStatus(status, Code::kAborted, "reason"), "expected ABORTED with \"reason\""));
  CHECK(!ExpectStatus(absl::OkStatus(), Code::kAborted, "").ok());
}

TEST_CASE("stacks that cannot be had are told so") {
  // No process has this number: it is above the largest that Linux gives.
  CHECK(StacksOf(1 << 30).rfind("(no stacks: ", 0) == 0);
}

}  // namespace
}  // namespace lockstep::testing
