"""Edits of the arithmetic of reductions on the CPU, judged by the tests of collectives."""
from mutant import Mutant

PROGRAMS = ["collective_test"]
EDITS = {
    "collective/average.h": [
        Mutant("while (power < static_cast<C>(world_size))", "while (2 * power < static_cast<C>(world_size))"),
        Mutant("if (IsFinite(average) || !IsFinite(sum)) return average;", "if (IsFinite(average)) return average;"),
        Mutant("return average > 0 ? kLargest<C> : -kLargest<C>;", "return kLargest<C>;"),
        Mutant("return value >= -kLargest<C> && value <= kLargest<C>;", "return value <= kLargest<C>;"),
        Mutant("static_cast<double>(sum) / world_size", "static_cast<float>(sum) / static_cast<float>(world_size)"),
        Mutant("std::int64_t upper = high + (low >> 32);", "std::int64_t upper = high;"),
        Mutant("if (upper == static_cast<std::int32_t>(upper))", "if (true)"),
        Mutant("if (upper == static_cast<std::int32_t>(upper))", "if (false)",
               equivalent="only quicker than the digits"),
        Mutant("upper = -upper - (lower != 0);", "upper = -upper;"),
        Mutant("negative ? 0 - magnitude : magnitude", "magnitude"),
    ],
    "collective/reduce_tree-inl.h": [
        Mutant("std::bit_floor(count - 1)", "std::bit_floor(count) / 2"),
        Mutant("std::has_single_bit(count) ? 1 / divisor : 0", "1 / divisor"),
        Mutant("if (done == count) return;", "return;"),
        Mutant("result[k] /= static_cast<Compute>(inputs.size());", ";"),
        Mutant("if (!IsFinite(result[k])) result[k] =", "result[k] ="),
        Mutant("for (std::size_t k = 0; scaled && k < count; ++k) result[k] *= factor;", ""),
        Mutant("ReduceBlock<SumOp, T>(inputs, begin, count, downscaled, scale.factor);",
               "ReduceBlock<SumOp, T>(inputs, 0, count, downscaled, scale.factor);"),
        Mutant("scaled ? inputs.size() == 1 : FitsRegisters", "FitsRegisters"),
        Mutant("AverageIntegers(pass.inputs, pass.in_begin, pass.count, averages);",
               "AverageIntegers(pass.inputs, 0, pass.count, averages);"),
        Mutant("AverageFloats<T>(pass.inputs, pass.in_begin, pass.count, averages);",
               "AverageFloats<T>(pass.inputs, 0, pass.count, averages);"),
        Mutant("advance(RunLeaves<SumOp, T, T>(pass));", "RunLeaves<SumOp, T, T>(pass); return;"),
        Mutant("pass.out_begin += done;", ""),
        Mutant("if (done < lanes) return begin;", ""),
        Mutant(".count = lanes, .scale = pass.scale}", ".count = lanes}"),
        Mutant("hn::IsNaN(hn::MulAdd(hn::Zero(d), b, zeros))", "hn::IsNaN(zeros)"),
        Mutant("pass.scale = ScaleForAverage(pass.inputs.size());", ""),
    ],
    "collective/reduce_tree.cc": [
        Mutant("const DefaultFloatMode mode;", ""),
        Mutant("if (misalignment(output) != first) return -1;", ""),
        Mutant("return FirstAbove(static_cast<const BFloat16*>(data), count, 0x7F80);",
               "return FirstAbove(static_cast<const BFloat16*>(data), count, 0x7F7F);"),
    ],
    "collective/reduce_lanes-inl.h": [
        Mutant("hn::IfThenElse(hn::Eq(a, b), hn::Or(a, b), lesser)", "lesser"),
        Mutant("hn::IfThenElse(hn::Eq(a, b), hn::And(a, b), greater)", "hn::IfThenElse(hn::Eq(a, b), hn::Or(a, b), greater)"),
        Mutant("hn::IfThenElse(is_nan, hn::Set(du, 0x7FC00000u), rounded)", "rounded"),
        Mutant("hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd)", "hn::Add(bits, hn::Set(du, 0x8000u))"),
    ],
    "collective/cpu_transport.cc": [
        Mutant("At(parts[r], row * mine.in_width + at, mine.dtype)", "At(parts[r], row * mine.in_width, mine.dtype)"),
    ],
    "collective/shares.h": [
        Mutant("lines * (rank + 1) / world_size * kElements", "lines / world_size * (rank + 1) * kElements"),
    ],
    "collective/shares.cc": [
        Mutant("for (int r = 0; r < rank; ++r) offset += round.call(r).*width;",
               "for (int r = 0; r < rank; ++r) offset += round.mine().*width;"),
        Mutant("const std::int64_t begin = lower ? 0 : half;", "const std::int64_t begin = 0;"),
    ],
    "runtime/float_mode.cc": [
        Mutant("kDefaultControl = 0x1F80;", "kDefaultControl = 0x1FC0;"),
        Mutant("if (control_ != kDefaultControl) WriteControl(kDefaultControl);", ""),
        Mutant("if (ReadFlags() != flags_) WriteFlags(flags_);", ""),
        Mutant("if (ReadControl() != control_) WriteControl(control_);", ""),
        Mutant("void WriteControl(std::uint64_t control) { Write(control | ReadFlags()); }",
               "void WriteControl(std::uint64_t control) { Write(control); }"),
    ],
}
