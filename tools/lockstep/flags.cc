#include "lockstep/tools/lockstep/flags.h"

#include <algorithm>
#include <limits>

#include "absl/flags/flag.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "lockstep/tools/lockstep/flag_values.h"
#include "lockstep/tools/lockstep/train/idx.h"

namespace lockstep::tools {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();
using NumRanks = Whole<int, 1, 1000>;
using Groups = Whole<int, 1, 100>;
using Threads = Whole<int, 0, 1000>;
using Count = Whole<int, 1, kMaxInt>;
using CountOrNone = Whole<int, 0, kMaxInt>;
using Seed = Whole<std::uint64_t, 0, std::numeric_limits<std::uint64_t>::max()>;
using Positive = Real<0>;
using Minutes = Real<0, 1000000>;
using Factor = Real<1>;

}  // namespace
}  // namespace lockstep::tools

using namespace lockstep::tools;  // NOLINT: ABSL_FLAG stands outside of namespaces

ABSL_FLAG(std::string, devices, "auto",
          "where the ranks run: cpu, cuda:0-3, cuda, or auto (all GPUs, else the CPU)");
ABSL_FLAG(absl::optional<NumRanks>, ranks, absl::nullopt,
          "number of ranks, dealt over the devices (one per device unless given)");
ABSL_FLAG(bool, pin, false, "bind each rank's thread to a core of its own");
ABSL_FLAG(std::string, format, "table", "table or json");

ABSL_FLAG(absl::optional<Count>, hidden, absl::nullopt,
          "train: hidden features, split over the ranks (256 unless given); bench mlp: features in "
          "and out (8192)");
ABSL_FLAG(Count, epochs, Count{3}, "passes over the training images");
ABSL_FLAG(Count, batch, Count{128}, "images per step");
ABSL_FLAG(absl::optional<Positive>, learning_rate, absl::nullopt,
          "first step size; it falls to 0 in a line (0.05 for sgd, 0.001 for adamw unless given)");
ABSL_FLAG(std::string, optimizer, "sgd", "sgd (momentum 0.9) or adamw");
ABSL_FLAG(std::string, activation, "gelu", "gelu or relu");
ABSL_FLAG(std::string, dtype, "float32",
          "type of weights and activations: float32, bfloat16 or float16");
ABSL_FLAG(Seed, seed, Seed{1},
          "train: decides the first weights and the order of the images; check: what goes wrong");
ABSL_FLAG(std::string, data, kFashionMnistDirectory,
          "directory of the image set, as IDX files, gzipped or plain");
ABSL_FLAG(bool, verify, false, "also train with one rank, and compare losses and weights");

ABSL_FLAG(bool, campaign, false,
          "check: let groups of 2, 3, 4 and 8 ranks go wrong in every way, again and again");
ABSL_FLAG(Minutes, minutes, Minutes{1}, "check: how long the campaign takes");

ABSL_FLAG(std::string, b, "1K", "smallest size in bytes");
ABSL_FLAG(std::string, e, "64M", "largest size in bytes");
ABSL_FLAG(Factor, f, Factor{2}, "factor from one size to the next");
ABSL_FLAG(CountOrNone, n, CountOrNone{0},
          "iterations; on GPUs, and of mlp, calls per round (0: as many as take long enough)");
ABSL_FLAG(CountOrNone, w, CountOrNone{5}, "iterations before that, which do not count");
ABSL_FLAG(bool, c, true, "check every element of every rank's result");
ABSL_FLAG(absl::optional<std::string>, d, absl::nullopt,
          "element type (float32 unless given; bench mlp: bfloat16)");
ABSL_FLAG(std::string, o, "sum", "reduction: sum, avg, prod, min or max");
ABSL_FLAG(bool, in_place, false, "let inputs and outputs be one memory");
ABSL_FLAG(Count, inner, Count{32768}, "mlp: features between the layers, split over the ranks");
ABSL_FLAG(std::string, rows, "8,512,4096", "mlp: rows of the input, one measurement each");
ABSL_FLAG(bool, graph, false, "GPUs: capture the calls in a CUDA graph, and time its replays");
ABSL_FLAG(std::string, peer, "none",
          "GPUs: who takes turns with lockstep: none, nccl or nccl_symmetric");
ABSL_FLAG(std::string, transport, "auto", "how data moves: auto, cpu, peer, staged or ordered");
ABSL_FLAG(Groups, groups, Groups{1}, "barrier and collectives: groups that do the same at once");
ABSL_FLAG(Threads, busy, Threads{0}, "threads that compute beside the ranks");
ABSL_FLAG(bool, tune, false, "GPUs: search the settings of all_reduce below");
ABSL_FLAG(absl::optional<std::string>, max_lines_bytes, absl::nullopt,
          "all_reduce: up to this size data travels in lines");
ABSL_FLAG(absl::optional<Count>, lines_blocks, absl::nullopt,
          "all_reduce: blocks that carry lines");
ABSL_FLAG(absl::optional<Count>, lines_threads, absl::nullopt,
          "all_reduce: threads of each of them");
ABSL_FLAG(absl::optional<Count>, push_blocks, absl::nullopt, "all_reduce: blocks that push tiles");

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
  const auto* const last = right.end() - 1;
  return absl::InvalidArgumentError(absl::StrCat(AsGiven(flag, value), ": it must be ",
                                                 absl::StrJoin(right.begin(), last, ", "), " or ",
                                                 *last));
}

// The flag's value as `parse` reads it, or its error behind the flag as it was given.
template <typename T>
absl::StatusOr<T> Parsed(absl::string_view flag, const std::string& value,
                         absl::StatusOr<T> (*parse)(absl::string_view)) {
  absl::StatusOr<T> parsed = parse(value);
  if (parsed.ok()) return parsed;
  return absl::Status(parsed.status().code(),
                      absl::StrCat(AsGiven(flag, value), ": ", parsed.status().message()));
}

absl::StatusOr<bool> JsonFromFlags() {
  const std::string format = absl::GetFlag(FLAGS_format);
  LOCKSTEP_RETURN_IF_ERROR(OneOf("format", format, {"table", "json"}));
  return format == "json";
}

}  // namespace

absl::StatusOr<Executor::Options> ExecutorOptionsFromFlags() {
  Executor::Options options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.devices,
                            Parsed("devices", absl::GetFlag(FLAGS_devices), ParseDevices));
  const auto ranks = absl::GetFlag(FLAGS_ranks);
  options.world_size = ranks.has_value() ? ranks->value : 0;
  options.pin_threads = absl::GetFlag(FLAGS_pin);
  return options;
}

absl::StatusOr<CheckOptions> CheckOptionsFromFlags() {
  CheckOptions options;
  if (const auto ranks = absl::GetFlag(FLAGS_ranks); ranks.has_value()) {
    if (ranks->value < 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--ranks=", ranks->value, " is out of range: it must be from 2 to 1000 here"));
    }
    options.world_sizes = {ranks->value};
  }
  options.length = absl::Minutes(absl::GetFlag(FLAGS_minutes).value);
  options.campaign = absl::GetFlag(FLAGS_campaign);
  options.seed = absl::GetFlag(FLAGS_seed).value;
  LOCKSTEP_ASSIGN_OR_RETURN(options.json, JsonFromFlags());
  return options;
}

absl::StatusOr<TrainOptions> TrainOptionsFromFlags() {
  TrainOptions options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.executor, ExecutorOptionsFromFlags());
  LOCKSTEP_RETURN_IF_ERROR(OneOf("optimizer", absl::GetFlag(FLAGS_optimizer), {"sgd", "adamw"}));
  LOCKSTEP_RETURN_IF_ERROR(OneOf("activation", absl::GetFlag(FLAGS_activation), {"gelu", "relu"}));
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype, Parsed("dtype", absl::GetFlag(FLAGS_dtype), ParseDType));
  LOCKSTEP_RETURN_IF_ERROR(OneOf("dtype", Name(options.dtype), {"float32", "bfloat16", "float16"}));
  options.hidden = absl::GetFlag(FLAGS_hidden).value_or(Count{256}).value;
  options.epochs = absl::GetFlag(FLAGS_epochs).value;
  options.batch = absl::GetFlag(FLAGS_batch).value;
  options.adamw = absl::GetFlag(FLAGS_optimizer) == "adamw";
  options.activation =
      absl::GetFlag(FLAGS_activation) == "gelu" ? Activation::kGelu : Activation::kRelu;
  options.learning_rate =
      absl::GetFlag(FLAGS_learning_rate).value_or(Positive{options.adamw ? 0.001 : 0.05}).value;
  options.seed = absl::GetFlag(FLAGS_seed).value;
  options.data = absl::GetFlag(FLAGS_data);
  LOCKSTEP_ASSIGN_OR_RETURN(options.json, JsonFromFlags());
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
  LOCKSTEP_ASSIGN_OR_RETURN(
      options.transport, Parsed("transport", absl::GetFlag(FLAGS_transport), ParseTransportKind));
  AllReduceTuning& tuning = options.tuning;
  if (const auto bytes = absl::GetFlag(FLAGS_max_lines_bytes); bytes.has_value()) {
    LOCKSTEP_ASSIGN_OR_RETURN(tuning.max_lines_bytes,
                              Parsed("max_lines_bytes", *bytes, ParseBytes));
  }
  const auto set = [](const absl::optional<Count>& given, int& field) {
    if (given.has_value()) field = given->value;
  };
  set(absl::GetFlag(FLAGS_lines_blocks), tuning.lines_blocks);
  set(absl::GetFlag(FLAGS_lines_threads), tuning.lines_threads);
  set(absl::GetFlag(FLAGS_push_blocks), tuning.push_blocks);
  return options;
}

absl::StatusOr<std::vector<std::int64_t>> RowsFromFlags() {
  std::vector<std::int64_t> all;
  const std::string text = absl::GetFlag(FLAGS_rows);
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int rows = 0;
    std::string error;
    if (!ParseWhole(part, 1, kMaxInt, rows, error)) {
      return absl::InvalidArgumentError(
          absl::StrCat(AsGiven("rows", text), ": \"", absl::Utf8SafeCEscape(part), "\" ", error));
    }
    all.push_back(rows);
  }
  return all;
}

absl::StatusOr<MlpBenchOptions> MlpOptionsFromFlags() {
  MlpBenchOptions options;
  options.hidden = absl::GetFlag(FLAGS_hidden).value_or(Count{8192}).value;
  options.inner = absl::GetFlag(FLAGS_inner).value;
  LOCKSTEP_ASSIGN_OR_RETURN(options.rows, RowsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype,
                            Parsed("d", absl::GetFlag(FLAGS_d).value_or("bfloat16"), ParseDType));
  return options;
}

absl::Status SizesFromFlags(BenchOptions& options) {
  const std::string smallest = absl::GetFlag(FLAGS_b);
  const std::string largest = absl::GetFlag(FLAGS_e);
  LOCKSTEP_ASSIGN_OR_RETURN(options.min_bytes, Parsed("b", smallest, ParseBytes));
  LOCKSTEP_ASSIGN_OR_RETURN(options.max_bytes, Parsed("e", largest, ParseBytes));
  options.factor = absl::GetFlag(FLAGS_f).value;
  if (options.min_bytes <= options.max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      AsGiven("b", smallest), ", ", AsGiven("e", largest), ": sizes must rise from -b to -e, and ",
      options.min_bytes, " is above ", options.max_bytes));
}

}  // namespace

absl::StatusOr<BenchOptions> BenchOptionsFromFlags() {
  BenchOptions options;
  LOCKSTEP_ASSIGN_OR_RETURN(options.executor, ExecutorOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.barrier, BarrierOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.peer, PeerFromFlags());
  LOCKSTEP_RETURN_IF_ERROR(SizesFromFlags(options));
  LOCKSTEP_ASSIGN_OR_RETURN(options.dtype,
                            Parsed("d", absl::GetFlag(FLAGS_d).value_or("float32"), ParseDType));
  LOCKSTEP_ASSIGN_OR_RETURN(options.mlp, MlpOptionsFromFlags());
  LOCKSTEP_ASSIGN_OR_RETURN(options.op, Parsed("o", absl::GetFlag(FLAGS_o), ParseReduceOp));
  LOCKSTEP_ASSIGN_OR_RETURN(options.json, JsonFromFlags());
  options.groups = absl::GetFlag(FLAGS_groups).value;
  options.busy = absl::GetFlag(FLAGS_busy).value;
  options.iterations = absl::GetFlag(FLAGS_n).value;
  options.warmup = absl::GetFlag(FLAGS_w).value;
  options.check = absl::GetFlag(FLAGS_c);
  options.in_place = absl::GetFlag(FLAGS_in_place);
  options.graph = absl::GetFlag(FLAGS_graph);
  options.tune = absl::GetFlag(FLAGS_tune);
  return options;
}

}  // namespace lockstep::tools
