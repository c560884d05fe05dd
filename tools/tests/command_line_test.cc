// The lockstep program from outside: what it says, and its exit code.
#include <filesystem>
#include <fstream>
#include <vector>

#include "lockstep/tools/tests/image_set.h"
#include "lockstep/tools/tests/sandbox.h"

namespace lockstep::tools {
namespace {

TEST_CASE("no such verb, and bad input to train, is one clear line and exit code 2") {
  const Sandbox sandbox;
  CheckRefused(sandbox, "trane",
               "unknown verb \"trane\"; there are train, bench, check, info and help");
  CheckRefused(sandbox, "train --epoch=3", "unknown flag --epoch; did you mean --epochs?");
  CheckRefused(sandbox, "train --no_such_thing_at_all", "unknown flag --no_such_thing_at_all");
  CheckRefused(sandbox, "train --factor=3", "unknown flag --factor");
  CheckRefused(sandbox, "train --epochs=three",
               "--epochs=three is not a number: it must be a whole one from 1 to 2147483647");
  CheckRefused(sandbox, "train --epochs", "--epochs needs a value");
  CheckRefused(sandbox, "train stray", "\"stray\" is not a flag");
  CheckRefused(sandbox, "train --ranks=0", "--ranks=0 is out of range: it must be from 1 to 1000");
  CheckRefused(sandbox, "train --ranks=-4", "--ranks=-4");
  CheckRefused(sandbox, "train --ranks=100000 --devices=cpu", "from 1 to 1000");
  CheckRefused(sandbox, "train --hidden=0", "--hidden=0 is out of range: it must be from 1 to");
  CheckRefused(sandbox, "train --batch=-1", "--batch=-1");
  CheckRefused(sandbox, "train --learning_rate=0", "must be above 0");
  CheckRefused(sandbox, "train --learning_rate=nan", "is not a number: it must be above 0");
  CheckRefused(sandbox, "train --dtype=int32", "it must be float32, bfloat16 or float16");
  CheckRefused(sandbox, "train --dtype=float8", "there are float32");
  CheckRefused(sandbox, "train --optimizer=lbfgs", "it must be sgd or adamw");
  CheckRefused(sandbox, "train --format=xml", "it must be table or json");
  CheckRefused(sandbox, "train --devices=gpu", "is not cpu, cuda");
  CheckRefused(sandbox, "train --devices=cuda:63", "this machine has");
  CheckRefused(sandbox, "train --data=/no/such/place",
               "/no/such/place/train-images-idx3-ubyte.gz: No such file");
}

TEST_CASE("bad input to bench is one clear line and exit code 2") {
  const Sandbox sandbox;
  CheckRefused(sandbox, "bench", "say what to measure: one of all_reduce");
  CheckRefused(sandbox, "bench all_shuffle", "\"all_shuffle\" is not one of all_reduce");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -b 12Q", "\"12Q\" is not a size");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -b 4K -e 1K", "sizes must rise");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -f 1",
               "-f 1 is out of range: it must be above 1");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu -o median", "there are sum, avg");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --graph", "graphs are for GPUs");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --peer=nccl", "NCCL");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --peer=mpi",
               "--peer=mpi: it must be none, nccl or nccl_symmetric");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --transport=pigeon",
               "transport \"pigeon\": there are auto");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --transport=peer",
               "all ranks are on the CPU");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --max_lines_bytes=many",
               "\"many\" is not a size");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --lines_blocks=few",
               "--lines_blocks=few is not a number");
  CheckRefused(sandbox, "bench all_reduce --devices=cpu --tune", "on two GPUs or more");
  CheckRefused(sandbox, "bench all_gather --devices=cpu --tune", "--tune for all_reduce");
  CheckRefused(sandbox, "bench barrier --devices=cpu --graph", "are for collectives");
  CheckRefused(sandbox, "bench mlp --devices=cpu --rows=8,x", "--rows=8,x: \"x\" is not a number");
  CheckRefused(sandbox, "bench mlp --devices=cpu --rows=0",
               "--rows=0: \"0\" is out of range: it must be from 1 to");
  CheckRefused(sandbox, "bench mlp --devices=cpu --hidden=0", "--hidden=0 is out of range");
  CheckRefused(sandbox, "bench mlp --devices=cpu --inner=-1", "--inner=-1 is out of range");
  CheckRefused(sandbox, "bench mlp --devices=cpu -d int32", "it must be a floating type");
  CheckRefused(sandbox, "bench mlp --devices=cpu -w -1",
               "-w -1 is out of range: it must be from 0 to");
  CheckRefused(sandbox, "bench mlp --devices=cpu --graph", "graphs are for GPUs");
  CheckRefused(sandbox, "bench mlp --devices=cpu --peer=nccl", "NCCL");
  CheckRefused(sandbox, "bench mlp --devices=cpu --peer=nccl_symmetric", "for collectives alone");
  CheckRefused(sandbox, "bench mlp --devices=cpu --tune", "--tune for all_reduce");
  CheckRefused(sandbox, "bench limits --devices=cpu", "limits: they are those of GPUs");
}

TEST_CASE("bad input to check and info is one clear line and exit code 2") {
  const Sandbox sandbox;
  CheckRefused(sandbox, "check --minutes=0",
               "--minutes=0 is out of range: it must be above 0 and at most 1000000");
  CheckRefused(sandbox, "check --minutes=nan", "must be above 0");
  CheckRefused(sandbox, "check --ranks=1", "--ranks=1 is out of range: it must be from 2 to 1000");
  CheckRefused(sandbox, "check --devices=cpu", "unknown flag --devices");
  CheckRefused(sandbox, "check --epochs=3", "unknown flag --epochs");
  CheckRefused(sandbox, "check all", "\"all\" is not a flag");
  CheckRefused(sandbox, "info --ranks", "--ranks needs a value");
}

TEST_CASE(
    "a directory where a file should be, and a file that is no image set, are one clear line") {
  const Sandbox sandbox;
  std::filesystem::create_directory(sandbox.path() + "/train-images-idx3-ubyte");
  CheckRefused(sandbox, "train --data=.", "is a directory");
  std::filesystem::remove(sandbox.path() + "/train-images-idx3-ubyte");
  std::ofstream(sandbox.path() + "/train-images-idx3-ubyte.gz") << "\x1f\x8b\x08 not really gzip";
  CheckRefused(sandbox, "train --data=.", "cannot be unpacked");
}

TEST_CASE("help is on stdout, and asking for nothing is not asking for help") {
  const Sandbox sandbox;
  for (const char* arguments : {"help", "--help", "train --help", "bench -h", "info --help"}) {
    const Outcome outcome = sandbox.Run(arguments);
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.out.size() > 100);
    CHECK(outcome.err.empty());
  }
  CHECK(sandbox.Run("train --help").out.find("--learning_rate") != std::string::npos);
  CHECK(sandbox.Run("").exit_code == 2);
}

TEST_CASE("info tells the transport and why") {
  const Sandbox sandbox;
  const Outcome outcome = sandbox.Run("info --devices=cpu --ranks=3");
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.out.find("cpu, because all ranks are on the CPU") != std::string::npos);
  CHECK(outcome.out.find("3, on cpu, cpu, cpu") != std::string::npos);
}

TEST_CASE("a flag that is refused is named with what was given and what is right") {
  const Sandbox sandbox;
  const std::string huge = "99999999999999999999";
  CheckRefused(sandbox, "train --seed=18446744073709551616",
               "--seed=18446744073709551616 is out of range: it must be from 0 to "
               "18446744073709551615");
  CheckRefused(sandbox, "train --seed=-1", "--seed=-1 is out of range");
  CheckRefused(sandbox, "check --seed=", "--seed=: it needs a value");
  CheckRefused(sandbox, "train --batch=99999999999",
               "--batch=99999999999 is out of range: it must be from 1 to 2147483647");
  for (const char* flag : {"ranks", "hidden", "epochs", "batch"}) {
    const std::string given = absl::StrCat("--", flag, "=");
    CheckRefused(sandbox, absl::StrCat("train ", given, "abc"), given + "abc is not a number");
    CheckRefused(sandbox, absl::StrCat("train ", given, huge), given + huge + " is out of range");
    CheckRefused(sandbox, absl::StrCat("train ", given, "0"), given + "0 is out of range");
    CheckRefused(sandbox, absl::StrCat("train ", given), given + ": it needs a value");
    CheckRefused(sandbox, absl::StrCat("train ", given, "0x10"), given + "0x10 is not a number");
    CheckRefused(sandbox, absl::StrCat("train ", given, "1.5"), given + "1.5 is not a number");
  }
  for (const char* flag : {"inner", "lines_blocks", "lines_threads", "push_blocks"}) {
    const std::string given = absl::StrCat("--", flag, "=");
    CheckRefused(sandbox, absl::StrCat("bench mlp ", given, "x"), given + "x is not a number");
    CheckRefused(sandbox, absl::StrCat("bench mlp ", given, "-3"), given + "-3 is out of range");
  }
  CheckRefused(sandbox, "info --ranks=1001", "it must be from 1 to 1000");
  CheckRefused(sandbox, "bench barrier -n 2147483648",
               "-n 2147483648 is out of range: it must be from 0 to 2147483647");
  CheckRefused(sandbox, "bench barrier -n", "-n needs a value");
  CheckRefused(sandbox, "bench barrier -w -1", "-w -1 is out of range");
  CheckRefused(sandbox, "bench mlp --rows=8,99999999999",
               "\"99999999999\" is out of range: it must be from 1 to 2147483647");
  CheckRefused(sandbox, "bench mlp --rows=8,", "\"\" is not a number");
  CheckRefused(sandbox, "train --learning_rate=1e999", "--learning_rate=1e999 is out of range");
  CheckRefused(sandbox, "train --learning_rate=inf", "is out of range: it must be above 0 and fin");
  CheckRefused(sandbox, "train --learning_rate=-0.1", "is out of range");
  CheckRefused(sandbox, "train --learning_rate=fast", "is not a number");
  CheckRefused(sandbox, "check --minutes=1e300", "--minutes=1e300 is out of range");
  CheckRefused(sandbox, "bench all_reduce -f nan", "-f nan is not a number: it must be above 1");
  CheckRefused(sandbox, "bench all_reduce -f 0.5", "-f 0.5 is out of range");
  CheckRefused(sandbox, "bench all_reduce -b 99999999999G",
               "-b 99999999999G: \"99999999999G\" is out of range: sizes are from 0 to "
               "4611686018427387904 bytes");
  CheckRefused(sandbox, "bench all_reduce -b 4294967297G", "is out of range");
  CheckRefused(sandbox, "bench all_reduce -e -1K", "-e -1K: \"-1K\" is not a size in bytes");
  CheckRefused(sandbox, "bench all_reduce -b K", "is not a size in bytes");
  CheckRefused(sandbox, "bench all_reduce -b 128M",
               "-b 128M, -e 64M: sizes must rise from -b to -e, and 134217728 is above 67108864");
  CheckRefused(sandbox, "bench all_reduce --max_lines_bytes=9999999999999999999G",
               "--max_lines_bytes=9999999999999999999G: ");
  CheckRefused(sandbox, "bench all_reduce -d float8", "-d float8: element type \"float8\"");
  CheckRefused(sandbox, "bench all_reduce -o median", "-o median: ");
  CheckRefused(sandbox, "bench all_reduce --transport=pigeon", "--transport=pigeon: ");
  CheckRefused(sandbox, "train --dtype=float8", "--dtype=float8: ");
  CheckRefused(sandbox, "train --devices=gpu", "--devices=gpu: ");
  CheckRefused(sandbox, "train --data=", "--data=: it needs a value");
  CheckRefused(sandbox, "train --pin=maybe", "--pin=maybe: it must be true or false");
  CheckRefused(sandbox, "bench all_reduce -c 2", "-c 2: it must be true or false");
  CheckRefused(sandbox, "train --ranks='two\nor three'", "--ranks=two\\nor three is not");
}

TEST_CASE("seeds of 64 bits are seeds, and of a flag that is given twice the last holds") {
  const Sandbox sandbox;
  CheckRefused(sandbox, "train --seed=18446744073709551615 --data=/none", "/none/train-images");
  CheckRefused(sandbox, "train --seed=4294967296 --data=/none", "/none/train-images");
  const Outcome outcome = sandbox.Run("info --devices=cpu --ranks=3 --ranks=2");
  CHECK(outcome.out.find("2, on cpu, cpu\n") != std::string::npos);
}

TEST_CASE("the version is told, and help tells the exit codes") {
  const Sandbox sandbox;
  for (const char* asked : {"--version", "version"}) {
    const Outcome outcome = sandbox.Run(asked);
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.out == "lockstep " LOCKSTEP_VERSION "\n");
    CHECK(outcome.err.empty());
  }
  const std::string help = sandbox.Run("help").out;
  for (const char* code : {"\n  0: ", "\n  1: ", "\n  2: "})
    CHECK(help.find(code) != std::string::npos);
}

TEST_CASE("results that cannot be written are an error, whatever the verb") {
  const Sandbox sandbox;
  WriteImageSet(sandbox.path(), "train", 60, 1);
  WriteImageSet(sandbox.path(), "t10k", 20, 2);
  for (const char* arguments :
       {"help", "--help", "--version", "train --help", "info --devices=cpu",
        "bench all_reduce --devices=cpu --ranks=2 -b 1K -e 2K -n 1",
        "bench barrier --devices=cpu --ranks=2 -n 10 --format=json",
        "bench mlp --devices=cpu --ranks=2 --hidden=8 --inner=8 --rows=1 -n 1",
        "train --devices=cpu --ranks=2 --hidden=4 --batch=10 --epochs=1 --data=.",
        "train --devices=cpu --ranks=2 --hidden=4 --batch=10 --epochs=1 --data=. --format=json"}) {
    for (const char* to : {">/dev/full", ">&-"}) {
      const Outcome outcome = sandbox.Run(arguments, to);
      INFO(arguments << " " << to << "\n" << outcome.err);
      CHECK(outcome.exit_code == 1);
      CHECK(outcome.err.find("lockstep: the results could not be written to stdout") !=
            std::string::npos);
    }
  }
  // What went wrong before is told as well, and its exit code stays.
  CHECK(sandbox.Run("trane", ">&-").exit_code == 2);
}

}  // namespace
}  // namespace lockstep::tools
