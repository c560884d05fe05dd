// Rows of what was measured: a line each in a table as they come, or all in one JSON document.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_REPORT_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_REPORT_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "lockstep/runtime/device.h"
#include "nlohmann/json.hpp"

namespace lockstep::tools {

/// A column of the table: an entry of each row.
struct Column {
  const char* title;
  int width;
  const char* key;     // a row without it shows "N/A"
  int digits = 2;      // behind the point, where the number is not whole
  std::string text{};  // stands in every row, if `key` is null
};

/// Writes to stdout.
///
///   Report report(json, "startup, 2 ranks", {{"", 28, "name"}, {"first (ms)", 12, "first_ms", 3}},
///                 {{"benchmark", "startup"}, {"ranks", 2}});
///   report.Add({{"name", "Executor::Create"}, {"first_ms", 0.15}});
///   return report.Finish();
class Report {
 public:
  /// The table is headed by `title`, this machine and the notes that are not empty, a line each.
  /// `document` is the JSON, but for the machine and the rows.
  Report(bool json, const std::string& title, std::vector<Column> columns, nlohmann::json document,
         const std::vector<std::string>& notes = {});

  void Add(nlohmann::json row);
  /// For entries beside the rows.
  nlohmann::json& document() { return document_; }

  /// Writes the JSON. kDataLoss: "wrong" elements, of the document's entry and the rows'.
  absl::Status Finish() const;

 private:
  const bool json_;
  const std::vector<Column> columns_;
  nlohmann::json document_;
};

/// "cuda:0, cuda:1".
std::string DeviceList(absl::Span<const Device> devices);

/// One line about this machine: processor, usable cores, build type.
std::string MachineLine();

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_REPORT_H_
