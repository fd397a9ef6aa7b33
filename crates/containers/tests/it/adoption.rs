//! The managing process is killed, and another takes over.
use crate::Test;
pub const TESTS: &[Test] = &[];
pub fn is_manager() -> bool {
    false
}
pub fn manager_main() -> ! {
    std::process::exit(0)
}
