// `lockstep info`: what this build and this machine offer.
#ifndef LOCKSTEP_TOOLS_LOCKSTEP_INFO_H_
#define LOCKSTEP_TOOLS_LOCKSTEP_INFO_H_

#include "lockstep/runtime/executor.h"

namespace lockstep::tools {

/// "0.1.0".
const char* Version();

/// Writes version, what is built in, devices, cores, the transport that these ranks would use and
/// why, and what lies between each two of their GPUs, to stdout.
absl::Status Info(const Executor::Options& options);

}  // namespace lockstep::tools

#endif  // LOCKSTEP_TOOLS_LOCKSTEP_INFO_H_
