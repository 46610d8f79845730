//! The command line of dialback.

fn main() {}
