//! The command line as users run it: the real binary, separate processes, certificates in a
//! temporary directory.

mod admin_page;
mod auditing;
mod benching;
mod calls;
mod secrets;
mod certificates;
mod clock;
mod config_print;
mod connect;
mod doctor;
mod draining;
mod enrolling;
mod failover;
mod files;
mod forwarding;
mod http;
mod http_programs;
mod killed;
mod crls;
mod start_errors;
#[cfg(unix)]
mod status;
mod memory;
mod suspended;
mod systemd;
mod pem;
mod process;
mod programs;
mod recording;
mod reload;
mod lifecycle;
mod tcp;
mod tokens;
mod tunnels;
