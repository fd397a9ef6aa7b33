//! `kobune version`.

/// Prints the versions of the program and of the API that it serves.
pub fn print(output: Option<&str>) {
    let (program, api) = (env!("CARGO_PKG_VERSION"), kubelet::VERSION);
    match output {
        Some(_) => println!("{}", serde_json::json!({"kobune": program, "kubernetes": api})),
        None => println!("kobune {program} (Kubernetes {api})"),
    }
}
