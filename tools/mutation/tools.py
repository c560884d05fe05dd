"""Edits of tools/lockstep/, judged by its own tests."""
from mutant import Mutant

PROGRAMS = ["tools_test"]  # built and run for each edit, in this order, until one fails
EDITS = {
    "tools/lockstep/check/abort_latency.cc": [
        Mutant("if (absl::StrContains(status.message(), kMeasured)) return absl::OkStatus();",
               "if (!status.ok()) return absl::OkStatus();"),
    ],
    "tools/lockstep/bench/bench.cc": [
        Mutant("std::clamp<std::size_t>(rank, 1, sorted.size()) - 1", "std::min(rank, sorted.size() - 1)"),
        Mutant('absl::ConsumeSuffix(&digits, "m")) shift = 20;', 'absl::ConsumeSuffix(&digits, "m")) shift = 10;'),
    ],
    "tools/lockstep/bench/collective.cc": [
        Mutant("wrong += row.wrong;", "wrong = row.wrong;"),
        Mutant("std::max(bytes * options.factor, bytes + 1)", "bytes + options.factor"),
        Mutant("bytes <= static_cast<double>(options.max_bytes)", "bytes < static_cast<double>(options.max_bytes)"),
        Mutant('if (options.check) json["wrong"] = row.wrong;', 'json["wrong"] = row.wrong;'),
    ],
    "tools/lockstep/bench/mlp.cc": [
        Mutant("std::accumulate(wrong.begin(), wrong.end(), std::int64_t{0})", "wrong.front()"),
    ],
    "tools/lockstep/bench/startup.cc": [
        Mutant("std::all_of(values.begin(), values.end(),", "std::all_of(values.begin(), values.end() - 1,"),
    ],
    "tools/lockstep/check/campaign.cc": [
        Mutant("findings.survived.ok() && findings.split_verdicts == 0 && findings.wrong_results == 0",
               "findings.survived.ok() && findings.split_verdicts == 0"),
        Mutant("(descriptors > before.descriptors)", "(descriptors > before.descriptors + 1000)"),
        Mutant("happened == survived && split_verdicts == 0", "split_verdicts == 0"),
        Mutant("result.hangs += absl::IsDeadlineExceeded(ran);", "result.hangs += absl::IsInternal(ran);"),
        Mutant("times_out ? hasty : patient", "times_out ? patient : hasty"),
    ],
    "tools/lockstep/check/episode.cc": [
        Mutant("absl::IsDeadlineExceeded(outcome.cause) != MustTimeOut(plan.mishap)",
               "absl::IsDeadlineExceeded(outcome.cause) && MustTimeOut(plan.mishap)"),
        Mutant("findings.wrong_results += rank.wrong_results();", "findings.wrong_results = rank.wrong_results();"),
        Mutant("wrong_results_ += wrong > 0;", "wrong_results_ = wrong > 0;"),
    ],
    "tools/lockstep/check/check.cc": [
        Mutant('if (!results.back().good()) absl::StrAppend(&failures,', 'if (false) absl::StrAppend(&failures,'),
    ],
    "tools/lockstep/bench/collective_data.cc": [
        Mutant("exact / ranks : exact", "static_cast<T>(exact) / ranks : exact"),
        Mutant("return kind == CollectiveKind::kAllReduce ? 2 * others : others;",
               "return kind == CollectiveKind::kAllReduce ? others : others;"),
        Mutant("return InputAt<T>(op, static_cast<int>(index / part), part * rank + index % part);",
               "return InputAt<T>(op, static_cast<int>(index / part), index % part);"),
    ],
    "tools/lockstep/flag_values.cc": [
        Mutant("!std::isnan(value)", "true"),
    ],
    "tools/lockstep/flag_values.h": [
        Mutant("value <= highest", "value <= highest + 1"),
    ],
    "tools/lockstep/flags.cc": [
        Mutant("options.warmup = absl::GetFlag(FLAGS_w).value;", "options.warmup = absl::GetFlag(FLAGS_n).value;"),
        Mutant("if (options.min_bytes <= options.max_bytes) return absl::OkStatus();", "return absl::OkStatus();"),
        Mutant("set(absl::GetFlag(FLAGS_push_blocks), tuning.push_blocks);",
               "set(absl::GetFlag(FLAGS_push_blocks), tuning.lines_blocks);"),
    ],
    "tools/lockstep/train/idx.cc": [
        Mutant("(static_cast<float>(pixel) / 255.0f - kMean) / kDeviation", "static_cast<float>(pixel) / 255.0f - kMean"),
        Mutant("if (available_ == 0 && between_members_) break;", "if (between_members_) break;"),
        Mutant('if (available_ == 0) return Broken("it ends too early");', "if (available_ == 0) { left = 0; return absl::OkStatus(); }"),
    ],
    "tools/lockstep/main.cc": [
        Mutant("if (closed && !lost) return exit_code;", "if (closed) return exit_code;"),
        Mutant("return exit_code == 0 ? 1 : exit_code;", "return exit_code;"),
        Mutant("lockstep::tools::HoldStandardStreams();", "",
               equivalent="without a GPU, whose driver does, nothing is opened that would take what is meant for stdout"),
    ],
    "tools/lockstep/bench/measure_collective.cc": [
        Mutant("for (const std::int64_t count : shared.wrong) row.wrong += count;", "row.wrong += shared.wrong.front();"),
    ],
    "tools/lockstep/parse_flags.cc": [
        Mutant("if (!value.has_value() && IsSwitch(*flag) && name.size() > 1)", "if (!value.has_value() && IsSwitch(*flag))"),
        Mutant("if (value.empty()) return refused", "if (false) return refused"),
    ],
    "tools/lockstep/bench/rank_bench.cc": [
        Mutant("LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, -77, buffers.out));",
               "if (!options_.in_place) LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, -77, buffers.out));"),
    ],
    "tools/lockstep/bench/rank_mlp.cc": [
        Mutant("far += !(std::abs(found[i] - expected[i]) <= most);", "far += std::abs(found[i] - expected[i]) > most;"),
        Mutant("if (std::isfinite(value)) largest", "largest"),
    ],
    "tools/lockstep/report.cc": [
        Mutant('wrong += row.value("wrong", std::int64_t{0});', 'wrong = row.value("wrong", std::int64_t{0});'),
    ],
    "tools/lockstep/train/train.cc": [
        Mutant("return verified;", "return absl::OkStatus();"),
    ],
    "tools/lockstep/train/training_run.cc": [
        Mutant("options_.learning_rate * (1 - done / (options_.epochs + 0.01))", "options_.learning_rate"),
        Mutant("{.momentum = 0.9}", "{.momentum = 0}"),
        Mutant("loss * static_cast<double>(rows) / static_cast<double>(images)",
               "loss * static_cast<double>(options_.batch) / static_cast<double>(images)"),
        Mutant("correct += result.num_correct;", "correct = result.num_correct;"),
    ],
    "tools/lockstep/train/verify.cc": [
        Mutant("return std::isnan(a) || a > b ? a : b;", "return std::max(a, b);"),
        Mutant("return Compare(sharded, whole);", "return Compare(whole, whole);"),
        Mutant("if (found <= allowed) return absl::OkStatus();", "if (!(found > allowed)) return absl::OkStatus();"),
        Mutant('return WithinOf("final weights", found.weight, allowed.weight);', "return absl::OkStatus();"),
    ],
}
