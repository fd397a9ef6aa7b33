//! `kobune`: from bare machines to running pods. This crate reads flags and the configuration file, wires the
//! components together and prints; the logic is theirs.

mod cli;
mod command;
mod config;
mod control_plane;
mod graph;
mod join;
mod node;
mod notify;
mod progress;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator asks for them, and a server that idles would be twice as large. Containers get them back.
    if let Err(error) = linux::process::forbid_huge_pages() {
        eprintln!("kobune: {}", error.text());
    }
    // Monitors and other helpers are this executable again; they must not see a thread or a parsed flag.
    if containers::is_helper() {
        containers::helper_main();
    }
    cli::main()
}
