//! Container logs: their format, reading them, keeping them short.

pub mod format;
