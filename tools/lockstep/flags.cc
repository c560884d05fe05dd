#include "lockstep/tools/lockstep/flags.h"

#include <algorithm>
#include <cmath>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "lockstep/tools/lockstep/idx.h"

ABSL_FLAG(std::string, devices, "auto",
          "where the ranks run: cpu, cuda:0-3, cuda, or auto (all GPUs, else the CPU)");
ABSL_FLAG(absl::optional<int>, ranks, absl::nullopt,
          "number of ranks, dealt over the devices (one per device unless given)");
ABSL_FLAG(bool, pin, false, "bind each rank's thread to a core of its own");
ABSL_FLAG(std::string, format, "table", "table or json");

ABSL_FLAG(absl::optional<int>, hidden, absl::nullopt,
          "train: hidden features, split over the ranks (256 unless given); bench mlp: features in "
          "and out (8192)");
ABSL_FLAG(int, epochs, 3, "passes over the training images");
ABSL_FLAG(int, batch, 128, "images per step");
ABSL_FLAG(absl::optional<double>, learning_rate, absl::nullopt,
          "first step size; it falls to 0 in a line (0.05 for sgd, 0.001 for adamw unless given)");
ABSL_FLAG(std::string, optimizer, "sgd", "sgd (momentum 0.9) or adamw");
ABSL_FLAG(std::string, activation, "gelu", "gelu or relu");
ABSL_FLAG(std::string, dtype, "float32",
          "type of weights and activations: float32, bfloat16 or float16");
ABSL_FLAG(int, seed, 1,
          "train: decides the first weights and the order of the images; check: what goes wrong");
ABSL_FLAG(std::string, data, lockstep::tools::kFashionMnistDirectory,
          "directory of the image set, as IDX files, gzipped or plain");
ABSL_FLAG(bool, verify, false, "also train with one rank, and compare losses and weights");

ABSL_FLAG(bool, campaign, false,
          "check: let groups of 2, 3, 4 and 8 ranks go wrong in every way, again and again");
ABSL_FLAG(double, minutes, 1, "check: how long the campaign takes");

ABSL_FLAG(std::string, b, "1K", "smallest size in bytes");
ABSL_FLAG(std::string, e, "64M", "largest size in bytes");
ABSL_FLAG(double, f, 2, "factor from one size to the next");
ABSL_FLAG(int, n, 0,
          "iterations; on GPUs, and of mlp, calls per round (0: as many as take long enough)");
ABSL_FLAG(int, w, 5, "iterations before that, which do not count");
ABSL_FLAG(bool, c, true, "check every element of every rank's result");
ABSL_FLAG(absl::optional<std::string>, d, absl::nullopt,
          "element type (float32 unless given; bench mlp: bfloat16)");
ABSL_FLAG(std::string, o, "sum", "reduction: sum, avg, prod, min or max");
ABSL_FLAG(bool, in_place, false, "let inputs and outputs be one memory");
ABSL_FLAG(int, inner, 32768, "mlp: features between the layers, split over the ranks");
ABSL_FLAG(std::string, rows, "8,512,4096", "mlp: rows of the input, one measurement each");
ABSL_FLAG(bool, graph, false, "GPUs: capture the calls in a CUDA graph, and time its replays");
ABSL_FLAG(std::string, peer, "none",
          "GPUs: who takes turns with lockstep: none, nccl or nccl_symmetric");
ABSL_FLAG(std::string, transport, "auto", "how data moves: auto, cpu, peer, staged or ordered");
ABSL_FLAG(int, groups, 1, "barrier, collectives: groups that do the same at once");
ABSL_FLAG(int, busy, 0, "threads that compute beside the ranks");
ABSL_FLAG(bool, tune, false, "GPUs: search the settings of all_reduce below");
ABSL_FLAG(absl::optional<std::string>, max_lines_bytes, absl::nullopt,
          "all_reduce: up to this size data travels in lines");
ABSL_FLAG(absl::optional<int>, lines_blocks, absl::nullopt, "all_reduce: blocks that carry lines");
ABSL_FLAG(absl::optional<int>, lines_threads, absl::nullopt, "all_reduce: threads of each of them");
ABSL_FLAG(absl::optional<int>, push_blocks, absl::nullopt, "all_reduce: blocks that push tiles");

namespace lockstep::tools {

const std::vector<const char*> kInfoFlags = {"devices", "ranks"};
const std::vector<const char*> kTrainFlags = {
    "devices",   "ranks",      "pin",   "hidden", "epochs", "batch",  "learning_rate",
    "optimizer", "activation", "dtype", "seed",   "data",   "format", "verify"};
const std::vector<const char*> kCheckFlags = {"ranks", "campaign", "seed", "minutes", "format"};
const std::vector<const char*> kBenchFlags = {"devices", "ranks", "pin", "groups", "busy", "b", "e",
                                              "f", "n", "w", "c", "d", "o", "in_place", "format",
                                              // The MLP.
                                              "hidden", "inner", "rows",
                                              // On GPUs.
                                              "graph", "peer", "transport", "tune",
                                              "max_lines_bytes", "lines_blocks", "lines_threads",
                                              "push_blocks"};

namespace {

absl::Status OneOf(absl::string_view flag, absl::string_view value,
                   std::initializer_list<absl::string_view> right) {
  if (std::find(right.begin(), right.end(), value) != right.end()) return absl::OkStatus();
  std::string text = absl::StrCat("--", flag, "=", value, ": it must be ");
  for (auto word = right.begin(); word != right.end(); ++word) {
    absl::StrAppend(&text,
                    word == right.begin()     ? ""
                    : word + 1 == right.end() ? " or "
                                              : ", ",
                    *word);
  }
  return absl::InvalidArgumentError(text);
}

absl::Status AtLeastOne(absl::string_view flag, int value) {
  if (value >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, ": it must be at least 1"));
}

}  // namespace

absl::StatusOr<Executor::Options> ExecutorOptionsFromFlags() {
  Executor::Options options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.devices, ParseDevices(absl::GetFlag(FLAGS_devices)));
  const absl::optional<int> ranks = absl::GetFlag(FLAGS_ranks);
  if (ranks.has_value()) LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("ranks", *ranks));
  options.world_size = ranks.value_or(0);
  options.pin_threads = absl::GetFlag(FLAGS_pin);
  return options;
}

absl::StatusOr<CheckOptions> CheckOptionsFromFlags() {
  CheckOptions options;
  LOCKSTEP_RETURN_IF_ERROR(OneOf("format", absl::GetFlag(FLAGS_format), {"table", "json"}));
  if (const auto ranks = absl::GetFlag(FLAGS_ranks); ranks.has_value()) {
    if (*ranks < 2 || *ranks > 1000) {
      return absl::InvalidArgumentError(
          absl::StrCat("--ranks=", *ranks, ": it must be from 2 to 1000"));
    }
    options.world_sizes = {*ranks};
  }
  const double minutes = absl::GetFlag(FLAGS_minutes);
  if (!(minutes > 0) || !std::isfinite(minutes)) {
    return absl::InvalidArgumentError(absl::StrCat("--minutes=", minutes, ": it must be above 0"));
  }
  options.length = absl::Minutes(minutes);
  options.campaign = absl::GetFlag(FLAGS_campaign);
  options.seed = static_cast<std::uint64_t>(absl::GetFlag(FLAGS_seed));
  options.json = absl::GetFlag(FLAGS_format) == "json";
  return options;
}

absl::StatusOr<TrainOptions> TrainOptionsFromFlags() {
  TrainOptions options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.executor, ExecutorOptionsFromFlags());
  LOCKSTEP_RETURN_IF_ERROR(OneOf("format", absl::GetFlag(FLAGS_format), {"table", "json"}));
  LOCKSTEP_RETURN_IF_ERROR(OneOf("optimizer", absl::GetFlag(FLAGS_optimizer), {"sgd", "adamw"}));
  LOCKSTEP_RETURN_IF_ERROR(OneOf("activation", absl::GetFlag(FLAGS_activation), {"gelu", "relu"}));
  const int hidden = absl::GetFlag(FLAGS_hidden).value_or(256);
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("hidden", hidden));
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("epochs", absl::GetFlag(FLAGS_epochs)));
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("batch", absl::GetFlag(FLAGS_batch)));
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype, ParseDType(absl::GetFlag(FLAGS_dtype)));
  LOCKSTEP_RETURN_IF_ERROR(OneOf("dtype", Name(options.dtype), {"float32", "bfloat16", "float16"}));
  options.hidden = hidden;
  options.epochs = absl::GetFlag(FLAGS_epochs);
  options.batch = absl::GetFlag(FLAGS_batch);
  options.adamw = absl::GetFlag(FLAGS_optimizer) == "adamw";
  options.activation =
      absl::GetFlag(FLAGS_activation) == "gelu" ? Activation::kGelu : Activation::kRelu;
  options.learning_rate = absl::GetFlag(FLAGS_learning_rate).value_or(options.adamw ? 0.001 : 0.05);
  if (!(options.learning_rate > 0) || !std::isfinite(options.learning_rate)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--learning_rate=", options.learning_rate, ": it must be above 0"));
  }
  options.seed = static_cast<std::uint64_t>(absl::GetFlag(FLAGS_seed));
  options.data = absl::GetFlag(FLAGS_data);
  options.json = absl::GetFlag(FLAGS_format) == "json";
  options.verify = absl::GetFlag(FLAGS_verify);
  return options;
}

namespace {

absl::StatusOr<BenchPeer> PeerFromFlags() {
  const std::string peer = absl::GetFlag(FLAGS_peer);
  LOCKSTEP_RETURN_IF_ERROR(OneOf("peer", peer, {"none", "nccl", "nccl_symmetric"}));
  if (peer == "none") return BenchPeer::kNone;
  return peer == "nccl" ? BenchPeer::kNccl : BenchPeer::kNcclSymmetric;
}

absl::StatusOr<CollectiveBarrierOptions> BarrierOptionsFromFlags() {
  CollectiveBarrierOptions options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.transport, ParseTransportKind(absl::GetFlag(FLAGS_transport)));
  AllReduceTuning& tuning = options.tuning;
  if (const auto bytes = absl::GetFlag(FLAGS_max_lines_bytes); bytes.has_value()) {
    LOCKSTEP_ASSIGN_OR_RETURN(tuning.max_lines_bytes, ParseBytes(*bytes));
  }
  tuning.lines_blocks = absl::GetFlag(FLAGS_lines_blocks).value_or(tuning.lines_blocks);
  tuning.lines_threads = absl::GetFlag(FLAGS_lines_threads).value_or(tuning.lines_threads);
  tuning.push_blocks = absl::GetFlag(FLAGS_push_blocks).value_or(tuning.push_blocks);
  return options;
}

absl::StatusOr<std::vector<std::int64_t>> RowsFromFlags() {
  std::vector<std::int64_t> all;
  const std::string text = absl::GetFlag(FLAGS_rows);
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int rows = 0;
    if (!absl::SimpleAtoi(part, &rows) || rows < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--rows=", text, ": \"", part, "\" is not a number of at least 1"));
    }
    all.push_back(rows);
  }
  return all;
}

absl::StatusOr<MlpBenchOptions> MlpOptionsFromFlags() {
  MlpBenchOptions options;
  const int hidden = absl::GetFlag(FLAGS_hidden).value_or(8192);
  const int inner = absl::GetFlag(FLAGS_inner);
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("hidden", hidden));
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("inner", inner));
  options.hidden = hidden;
  options.inner = inner;
  LOCKSTEP_ASSIGN_OR_RETURN(options.rows, RowsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype, ParseDType(absl::GetFlag(FLAGS_d).value_or("bfloat16")));
  return options;
}

}  // namespace

absl::StatusOr<BenchOptions> BenchOptionsFromFlags() {
  BenchOptions options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.executor, ExecutorOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.barrier, BarrierOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.peer, PeerFromFlags());
  LOCKSTEP_RETURN_IF_ERROR(OneOf("format", absl::GetFlag(FLAGS_format), {"table", "json"}));
  LOCKSTEP_ASSIGN_OR_RETURN(options.min_bytes, ParseBytes(absl::GetFlag(FLAGS_b)));
  LOCKSTEP_ASSIGN_OR_RETURN(options.max_bytes, ParseBytes(absl::GetFlag(FLAGS_e)));
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype, ParseDType(absl::GetFlag(FLAGS_d).value_or("float32")));
  LOCKSTEP_ASSIGN_OR_RETURN(options.mlp, MlpOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.op, ParseReduceOp(absl::GetFlag(FLAGS_o)));
  options.groups = absl::GetFlag(FLAGS_groups);
  LOCKSTEP_RETURN_IF_ERROR(AtLeastOne("groups", options.groups));
  options.busy = absl::GetFlag(FLAGS_busy);
  if (options.busy < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--busy=", options.busy, ": it must be at least 0"));
  }
  options.factor = absl::GetFlag(FLAGS_f);
  options.iterations = absl::GetFlag(FLAGS_n);
  options.warmup = absl::GetFlag(FLAGS_w);
  options.check = absl::GetFlag(FLAGS_c);
  options.in_place = absl::GetFlag(FLAGS_in_place);
  options.json = absl::GetFlag(FLAGS_format) == "json";
  options.graph = absl::GetFlag(FLAGS_graph);
  options.tune = absl::GetFlag(FLAGS_tune);
  return options;
}

}  // namespace lockstep::tools
