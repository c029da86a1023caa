# Makes a seccomp profile for `localhostProfile` of Docker's `default.json`: that of a container without capabilities on x86-64,
# and pidfd_getfd. Kubernetes would not read the conditions in there, and let through what they guard.
{defaultAction, defaultErrnoRet, architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], syscalls: (
  [.syscalls[]
    | select(.includes.caps == null)
    | select((.includes.arches // ["amd64"]) | contains(["amd64"]))
    | select((.excludes.arches // []) | contains(["amd64"]) | not)
    | del(.includes, .excludes, .comment)]
  + [{names: ["pidfd_getfd"], action: "SCMP_ACT_ALLOW"}])}
