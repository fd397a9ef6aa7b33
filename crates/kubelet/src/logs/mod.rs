//! Container logs: their format, reading them, keeping them short.

pub mod format;
pub mod read;
pub mod rotate;
