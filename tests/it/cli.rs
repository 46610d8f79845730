//! The command line as users have it: the real binary, separate processes, certificates in a
//! directory of their own.

mod auditing;
mod calls;
mod canary;
mod certificates;
mod clock;
mod connect;
mod draining;
mod enrolling;
mod failover;
mod files;
mod forwarding;
mod http;
mod killed;
mod lists;
mod local;
mod memory;
mod paused;
mod pem;
mod process;
mod programs;
mod reload;
mod staying;
mod tcp;
mod tokens;
